"""Records what vLLM's own scheduler does with scenarios. Run it with an interpreter that has vLLM:

    python tests/vllm/record.py FIRST_SEED COUNT > steps.jsonl

No weights, no GPU: vLLM's ``EngineCore`` steps its own scheduler, and the model executor is
replaced by the scenario's forced tokens. One line for each seed and kind of scenario:
``{"seed": ..., "kind": ..., "vllm": version, "steps": [...]}``, each step as ``StepRecord`` in
``tests/vllm/replay.py``.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

for blocked in ("torchvision", "torchaudio", "torchcodec"):  # wheels that don't match torch's
    sys.modules[blocked] = None  # type: ignore[assignment]
os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402
import vllm  # noqa: E402
from vllm.config import (  # noqa: E402
    CacheConfig,
    KVEventsConfig,
    ModelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.distributed.kv_events import BlockStored  # noqa: E402
from vllm.sampling_params import SamplingParams  # noqa: E402
from vllm.utils.hashing import sha256  # noqa: E402
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash  # noqa: E402
from vllm.v1.core.sched.scheduler import Scheduler  # noqa: E402
from vllm.v1.engine.core import EngineCore  # noqa: E402
from vllm.v1.kv_cache_interface import (  # noqa: E402
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
)
from vllm.v1.outputs import ModelRunnerOutput  # noqa: E402
from vllm.v1.request import Request  # noqa: E402
from vllm.v1.structured_output import StructuredOutputManager  # noqa: E402

from tests.vllm.kv_event_digest import KvEventDigest  # noqa: E402
from tests.vllm.scenarios import KINDS, Scenario, ScenarioRequest, scenario  # noqa: E402

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


class ForcedTokens:
    """Stands for the model executor: every request's next token is known.

    Also stands for the future of a step's output, which nobody looks at before it is due.
    """

    def __init__(self, scheduler: Scheduler, given: Scenario) -> None:
        self._scheduler = scheduler
        self._tokens = {request.request_id: request.tokens for request in given.requests}
        self._samples: dict[str, bool] = {}

    def execute_model(self, output: Any, *, non_block: bool) -> ForcedTokens:
        """Return the step to come; whoever is not in the midst of its prompt samples a token."""
        assert non_block
        step = ForcedTokens.__new__(ForcedTokens)
        step._scheduler, step._tokens = self._scheduler, self._tokens
        step._samples = {
            request_id: not self._scheduler.requests[request_id].is_prefill_chunk
            for request_id in output.num_scheduled_tokens
        }
        self._latest = step
        return step

    def sample_tokens(self, grammar: Any, *, non_block: bool) -> ForcedTokens:
        """Return the step that was executed last."""
        assert grammar is None
        assert non_block
        return self._latest

    def result(self) -> ModelRunnerOutput:
        """Return the forced token of everyone who samples one."""
        ids = list(self._samples)
        return ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={request_id: index for index, request_id in enumerate(ids)},
            sampled_token_ids=[self._sampled(request_id) for request_id in ids],
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )

    def _sampled(self, request_id: str) -> list[int]:
        request = self._scheduler.requests.get(request_id)
        if request is None or not self._samples[request_id]:
            return []
        return [self._tokens[request_id][request.num_tokens]]


class RecordedCore(EngineCore):
    """vLLM's engine core without its processes, workers and model.

    Attributes:
        record: What the scheduler did in this call of the step function.
    """

    def __init__(self, given: Scenario, model_dir: str) -> None:
        config = make_config(given, model_dir)
        self.vllm_config = config
        self.scheduler = make_scheduler(given, config)
        self.model_executor = ForcedTokens(self.scheduler, given)
        self.log_stats = self.is_mm_encoder_only = self.is_pooling_model = False
        self.check_for_draft_tokens = False
        self.aborts_queue: queue.Queue[list[str]] = queue.Queue()
        self.batch_queue_size = config.max_concurrent_batches
        assert self.batch_queue_size == (2 if given.async_scheduling else 1)
        self.batch_queue = deque(maxlen=2) if given.async_scheduling else None
        self.step_fn = self.step_with_batch_queue if given.async_scheduling else self.step
        self._weight_version = None
        self.record: list[Any] = []
        self._num_evicted = 0
        self._schedule, self.scheduler.schedule = self.scheduler.schedule, self.schedule
        pool = self.scheduler.kv_cache_manager.block_pool
        self._evict, pool._maybe_evict_cached_block = pool._maybe_evict_cached_block, self.evict
        self.digest = KvEventDigest()
        self.scheduler.kv_event_publisher.publish = self.publish

    def abort_requests(self, request_ids: list[str]) -> None:
        """Abort in the order given; a batch of aborts is a set, in the order of its hashes."""
        for request_id in request_ids:
            super().abort_requests([request_id])

    def evict(self, block: Any) -> bool:
        """Count evictions."""
        evicted = self._evict(block)
        self._num_evicted += evicted
        return evicted

    def publish(self, batch: Any) -> None:
        """Take in what vLLM would send to its subscribers."""
        for event in batch.events:
            if isinstance(event, BlockStored):
                self.digest.tell([("stored", event.parent_block_hash, event.block_hashes)])
            else:
                self.digest.tell([("removed", None, event.block_hashes)])

    def schedule(self, throttle_prefills: bool) -> Any:
        """Record a step as it is scheduled."""
        output = self._schedule(throttle_prefills)
        pool = self.scheduler.kv_cache_manager.block_pool
        self.record = [
            sorted(output.num_scheduled_tokens.items()),
            sorted(output.preempted_req_ids or ()),
            pool.get_num_free_blocks(),
            len(pool.cached_block_hash_to_block),
            self._num_evicted,
        ]
        return output

    def recorded_step(self) -> list[Any]:
        """Make a step and return its record."""
        self.record = []
        outputs, _ = self.step_fn()
        ended = [
            output.request_id
            for by_client in (outputs or {}).values()
            for output in by_client.outputs
            if output.finish_reason is not None
        ]
        return [*self.record, sorted(ended)]


def make_config(given: Scenario, model_dir: str) -> VllmConfig:
    """Return the scenario's limits as vLLM takes them."""
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
            policy=given.policy,
            long_prefill_token_threshold=given.long_prefill_token_threshold,
            long_prefill_token_threshold_adaptive=given.long_prefill_token_threshold_adaptive,
            async_scheduling=False,
        ),
        cache_config=cache,
        kv_events_config=KVEventsConfig(enable_kv_cache_events=True, publisher="null"),
    )
    # Set late: on a CPU vLLM turns it off, for the sake of the model runner that we don't have.
    config.scheduler_config.async_scheduling = given.async_scheduling
    return config


def make_scheduler(given: Scenario, config: VllmConfig) -> Scheduler:
    """Return a fresh scheduler of the class that the config asks for."""
    spec = FullAttentionSpec(
        block_size=given.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32
    )
    return config.scheduler_config.get_scheduler_cls()(
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


def record(given: Scenario, model_dir: str) -> tuple[list[list[Any]], list[int | str]]:
    """Run a scenario to its end; return one record a call of the engine's step, and its events."""
    core = RecordedCore(given, model_dir)
    hasher = get_request_block_hasher(given.block_size, sha256) if given.prefix_caching else None
    arrivals = deque(enumerate(given.requests))
    aborts = deque(given.aborts)
    steps: list[list[Any]] = []
    while (arrivals or core.scheduler.has_requests() or core.batch_queue) and (
        len(steps) < MAX_STEPS
    ):
        while arrivals and arrivals[0][1].at_step <= len(steps):
            core.scheduler.add_request(_request(*arrivals.popleft(), hasher))
        while aborts and aborts[0].at_step <= len(steps):
            abort = aborts.popleft()
            if abort.during_step:
                core.aborts_queue.put([abort.request_id])
            else:
                core.abort_requests([abort.request_id])
        steps.append(core.recorded_step())
    return steps, core.digest.result()


def _request(order: int, given: ScenarioRequest, hasher: Any) -> Request:
    return Request(
        request_id=given.request_id,
        prompt_token_ids=list(given.tokens[: given.num_prompt_tokens]),
        sampling_params=SamplingParams(max_tokens=given.num_output_tokens, ignore_eos=True),
        pooling_params=None,
        arrival_time=float(order),
        priority=given.priority,
        block_hasher=hasher,
    )


def main() -> None:
    """Record the scenarios that the arguments name."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    init_none_hash(sha256)
    with tempfile.TemporaryDirectory() as model_dir:
        Path(model_dir, "config.json").write_text(json.dumps(CONFIG))
        for seed in range(first, first + count):
            for kind in KINDS:
                steps, events = record(scenario(seed, kind), model_dir)
                line = {
                    "seed": seed,
                    "kind": kind,
                    "vllm": vllm.__version__,
                    "events": events,
                    "steps": steps,
                }
                sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
