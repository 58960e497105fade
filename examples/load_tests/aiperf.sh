#!/bin/sh
# AIPerf's conversations against panjiu serve:
#   panjiu serve --model qwen3-8b
#   examples/load_tests/aiperf.sh TOKENISER_DIRECTORY [URL]
# Its turns are sessions here by X-Session-ID, so they find their KV again. It exits with 0 when
# requests fail: read error_summary in out/profile_export_aiperf.json.
set -eu
tokeniser=${1:?say where a tokeniser is, e.g. what tests/clients/make_tokeniser.py makes}
url=${2:-http://127.0.0.1:8000}
# With these set it takes no directory for a tokeniser; without them it loads nothing for one either.
env -u HF_HUB_OFFLINE -u TRANSFORMERS_OFFLINE "${AIPERF:-aiperf}" profile \
    --model "${MODEL:-qwen3-8b}" --url "$url" --endpoint-type chat --streaming \
    --tokenizer "$tokeniser" --use-server-token-count --per-chunk-usage \
    --conversation-num 8 --conversation-turn-mean 4 --conversation-turn-delay-mean 500 \
    --concurrency 4 --isl 3000 --osl 64 --session-header X-Session-ID \
    --extra-inputs ignore_eos:true --ui none --artifact-dir "${OUT:-out}"
