#!/bin/sh
# GuideLLM against panjiu serve:
#   panjiu serve --model qwen3-8b
#   examples/load_tests/guidellm.sh TOKENISER_DIRECTORY [URL]
# Errors are in benchmarks[].metrics.request_totals.errored of what it writes.
set -eu
tokeniser=${1:?say where a tokeniser is, e.g. what tests/clients/make_tokeniser.py makes}
url=${2:-http://127.0.0.1:8000}
HF_HUB_OFFLINE=1 "${GUIDELLM:-guidellm}" run \
    --backend "kind=openai_http,target=$url,model=${MODEL:-qwen3-8b}" \
    --profile kind=concurrent,streams=8 --constraint kind=max_requests,count=40 \
    --tokenizer "kind=huggingface_auto,model=$tokeniser" \
    --data kind=synthetic_text,prompt_tokens=3000,output_tokens=64 \
    --output "kind=json,path=${OUT:-guidellm.json}" --disable-console-interactive
