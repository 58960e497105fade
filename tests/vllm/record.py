"""Records what vLLM's own scheduler does with scenarios. Run it with an interpreter that has vLLM:

    python tests/vllm/record.py FIRST_SEED COUNT > steps.jsonl

No weights, no GPU: the model runner is replaced by the scenario's forced tokens. One line a
scenario: ``{"seed": ..., "vllm": version, "steps": [...]}``, each step as ``StepRecord`` in
``tests/vllm/replay.py``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

for blocked in ("torchvision", "torchaudio", "torchcodec"):  # wheels that don't match torch's
    sys.modules[blocked] = None  # type: ignore[assignment]
os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402
import vllm  # noqa: E402
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig  # noqa: E402
from vllm.sampling_params import SamplingParams  # noqa: E402
from vllm.utils.hashing import sha256  # noqa: E402
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.kv_cache_interface import (  # noqa: E402
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
)
from vllm.v1.outputs import ModelRunnerOutput  # noqa: E402
from vllm.v1.request import Request, RequestStatus  # noqa: E402
from vllm.v1.structured_output import StructuredOutputManager  # noqa: E402

from tests.vllm.scenarios import Scenario, ScenarioRequest, scenario  # noqa: E402

MAX_MODEL_LEN = 100_000
MAX_STEPS = 5_000
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 1000,
    "max_position_embeddings": MAX_MODEL_LEN,
    "torch_dtype": "float16",
    "rms_norm_eps": 1e-5,
}


def make_scheduler(given: Scenario, model_dir: str) -> Scheduler:
    """Return a fresh scheduler with the scenario's limits."""
    cache = CacheConfig(block_size=given.block_size, enable_prefix_caching=given.prefix_caching)
    cache.num_gpu_blocks = given.num_blocks
    config = VllmConfig(
        model_config=ModelConfig(
            model=model_dir, skip_tokenizer_init=True, dtype="float16", seed=0
        ),
        scheduler_config=SchedulerConfig(
            max_num_seqs=given.max_num_seqs,
            max_num_batched_tokens=given.max_num_batched_tokens,
            max_model_len=MAX_MODEL_LEN,
            enable_chunked_prefill=True,
            is_encoder_decoder=False,
            async_scheduling=False,
        ),
        cache_config=cache,
    )
    spec = FullAttentionSpec(
        block_size=given.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32
    )
    return Scheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=given.num_blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=given.block_size,
        hash_block_size=given.block_size,
        log_stats=False,
    )


def record(given: Scenario, model_dir: str) -> list[list[Any]]:
    """Run a scenario to its end; return one record a step."""
    scheduler = make_scheduler(given, model_dir)
    hasher = get_request_block_hasher(given.block_size, sha256) if given.prefix_caching else None
    waiting, aborts = list(given.requests), list(given.aborts)
    by_id = {request.request_id: request for request in given.requests}
    steps: list[list[Any]] = []
    while (waiting or scheduler.has_unfinished_requests()) and len(steps) < MAX_STEPS:
        while waiting and waiting[0].at_step <= len(steps):
            scheduler.add_request(_request(waiting.pop(0), hasher))
        while aborts and aborts[0][0] <= len(steps):
            scheduler.finish_requests(aborts.pop(0)[1], RequestStatus.FINISHED_ABORTED)
        output = scheduler.schedule()
        pool = scheduler.kv_cache_manager.block_pool
        steps.append(
            [
                sorted(output.num_scheduled_tokens.items()),
                sorted(output.preempted_req_ids or ()),
                pool.get_num_free_blocks(),
                len(pool.cached_block_hash_to_block),
            ]
        )
        scheduler.update_from_output(output, _sampled(scheduler, output, by_id))
    return steps


def _request(given: ScenarioRequest, hasher: Any) -> Request:
    return Request(
        request_id=given.request_id,
        prompt_token_ids=list(given.tokens[: given.num_prompt_tokens]),
        sampling_params=SamplingParams(max_tokens=given.num_output_tokens, ignore_eos=True),
        pooling_params=None,
        block_hasher=hasher,
    )


def _sampled(
    scheduler: Scheduler, output: Any, by_id: dict[str, ScenarioRequest]
) -> ModelRunnerOutput:
    """Return the forced token of every request whose prompt is computed by this step."""
    ids = list(output.num_scheduled_tokens)
    sampled = []
    for request_id in ids:
        request = scheduler.requests[request_id]
        done = request.num_computed_tokens >= request.num_tokens
        sampled.append([by_id[request_id].tokens[request.num_tokens]] if done else [])
    return ModelRunnerOutput(
        req_ids=ids,
        req_id_to_index={request_id: index for index, request_id in enumerate(ids)},
        sampled_token_ids=sampled,
        logprobs=None,
        prompt_logprobs_dict={},
        pooler_output=[],
    )


def main() -> None:
    """Record the scenarios that the arguments name."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    init_none_hash(sha256)
    with tempfile.TemporaryDirectory() as model_dir:
        Path(model_dir, "config.json").write_text(json.dumps(CONFIG))
        for seed in range(first, first + count):
            line = {
                "seed": seed,
                "vllm": vllm.__version__,
                "steps": record(scenario(seed), model_dir),
            }
            sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
