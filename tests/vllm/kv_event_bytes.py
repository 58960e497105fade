"""vLLM's own reading and writing of KV event batches. Run it with an interpreter that has vLLM:

    python tests/vllm/kv_event_bytes.py HEX

prints, in hex, the batch that HEX spells as vLLM writes it again, and a batch of vLLM's making.
"""

from __future__ import annotations

import os
import sys

for blocked in ("torchvision", "torchaudio", "torchcodec"):  # wheels that don't match torch's
    sys.modules[blocked] = None  # type: ignore[assignment]
os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1")

import msgspec  # noqa: E402
from vllm.distributed.kv_events import (  # noqa: E402
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    KVEventBatch,
)

OWN = KVEventBatch(
    ts=1.5,
    events=[
        BlockStored(
            block_hashes=[1, 2**64 - 1],
            parent_block_hash=None,
            token_ids=[5, 6, 7, 8],
            block_size=2,
            lora_id=None,
            medium="GPU",
            lora_name=None,
            group_idx=0,
            session_id="agent-1",
        ),
        BlockRemoved(block_hashes=[1], medium="GPU", group_idx=0),
        AllBlocksCleared(),
    ],
    data_parallel_rank=3,
)

if __name__ == "__main__":
    read = msgspec.msgpack.Decoder(KVEventBatch).decode(bytes.fromhex(sys.argv[1]))
    print("panjiu:", msgspec.msgpack.encode(read).hex(), msgspec.msgpack.encode(OWN).hex())  # noqa: T201
