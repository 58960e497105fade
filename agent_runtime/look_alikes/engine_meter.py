"""What vLLM's metrics count, read off one emulated engine at its own times."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.look_alikes.prometheus_text import Histogram
from agent_runtime.turns import TurnRequest
from hw_model.engine.engine_core import TokensGenerated
from hw_model.engine.request import EngineRequest, RequestId, RequestStatus

TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_LATENCY_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
REQUEST_LATENCY_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
CHOICES = (1, 2, 5, 10, 20)
"""Buckets of vLLM 0.32, ``vllm/v1/metrics/buckets.py``."""


def token_bounds(most: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, 20, 50, ... up to ``most``: vLLM's buckets for a request's tokens."""
    bounds: list[int] = []
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power > most:
                return tuple(bounds)
            bounds.append(digit * power)
        power *= 10


@dataclass(slots=True)
class _Metered:
    """A request under way."""

    engine_request: EngineRequest
    max_tokens: int | None
    arrived_s: float
    admitted_s: float = 0.0
    first_token_s: float = 0.0
    last_token_s: float = 0.0
    num_tokens: int = 0


class EngineMeter:
    """Counts of one replica; a ``ReplicaObserver``.

    Times are the engine's: when tokens were ready, not when somebody read them.

    Args:
        max_model_len: Longest prompt + output.

    Invariant: ``_waiting`` holds, in order of arrival, those that were not yet seen to have left
        the engine's queue, which is in that order.
    """

    def __init__(self, max_model_len: int) -> None:
        tokens = token_bounds(max_model_len)
        self._metered: dict[RequestId, _Metered] = {}
        self._waiting: deque[_Metered] = deque()
        self.num_prompt_tokens = self.num_cached_tokens = self.num_generated_tokens = 0
        self.num_stopped = self.num_at_limit = 0
        self.ttft_s = Histogram(TTFT_S)
        self.token_latency_s = Histogram(TOKEN_LATENCY_S)
        self.request_token_s = Histogram(TOKEN_LATENCY_S)
        self.e2e_s = Histogram(REQUEST_LATENCY_S)
        self.queue_s = Histogram(REQUEST_LATENCY_S)
        self.inference_s = Histogram(REQUEST_LATENCY_S)
        self.prefill_s = Histogram(REQUEST_LATENCY_S)
        self.decode_s = Histogram(REQUEST_LATENCY_S)
        self.prompt_tokens = Histogram(tokens)
        self.generation_tokens = Histogram(tokens)
        self.asked_tokens = Histogram(tokens)
        self.max_generation_tokens = Histogram(tokens)
        self.computed_tokens = Histogram(tokens)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.choices = Histogram(CHOICES)
        self.preemptions = Histogram(PREEMPTIONS)

    def submitted(self, request: TurnRequest, engine_request: EngineRequest, now_s: float) -> None:
        """Begin to meter a request."""
        metered = _Metered(engine_request, request.max_output_tokens, now_s)
        self._metered[engine_request.request_id] = metered
        self._waiting.append(metered)

    def stepped(self, at_s: float, generated: Sequence[TokensGenerated]) -> None:
        """Count what steps generated, the last of which ended at ``at_s``."""
        start = 0
        while start < len(generated):
            stop = start + 1
            while stop < len(generated) and generated[stop].at_s == generated[start].at_s:
                stop += 1
            self._count_step(generated[start:stop])
            start = stop
        self._note_admitted(at_s)

    def aborted(self, engine_request: EngineRequest, now_s: float) -> None:  # noqa: ARG002
        """Forget a request; as in vLLM, one that its client left is not among the finished."""
        self._metered.pop(engine_request.request_id, None)

    def _count_step(self, generated: Sequence[TokensGenerated]) -> None:
        """Count one step, or one run of equal decode steps."""
        num_computed = 0
        for tokens in generated:
            metered = self._metered.get(tokens.request_id)
            if metered is not None:
                num_computed += self._count_tokens(metered, tokens)
        num_steps = generated[0].num_tokens
        self.step_tokens.observe(num_computed + len(generated), num_steps)

    def _count_tokens(self, metered: _Metered, tokens: TokensGenerated) -> int:
        """Count a request's tokens; return how many of its prompt were computed for them."""
        num_new, num_computed = tokens.num_tokens, 0
        if metered.num_tokens == 0:
            metered.first_token_s = tokens.at_s
            self._note_admitted(metered.arrived_s)
            self.ttft_s.observe(tokens.at_s - metered.arrived_s)
            num_prompt = metered.engine_request.num_prompt_tokens
            num_computed = num_prompt - tokens.num_cached_tokens
            self.num_prompt_tokens += num_prompt
            self.num_cached_tokens += tokens.num_cached_tokens
        else:
            self.token_latency_s.observe((tokens.at_s - metered.last_token_s) / num_new, num_new)
        metered.last_token_s = tokens.at_s
        metered.num_tokens += num_new
        self.num_generated_tokens += num_new
        if tokens.finished:
            self._count_finished(metered)
        return num_computed

    def _note_admitted(self, at_s: float) -> None:
        """Note when requests left the queue; at the latest when they have a token."""
        waiting = self._waiting
        while waiting and waiting[0].engine_request.status is not RequestStatus.WAITING:
            metered = waiting.popleft()
            metered.admitted_s = max(at_s, metered.arrived_s)

    def _count_finished(self, metered: _Metered) -> None:
        del self._metered[metered.engine_request.request_id]
        request = metered.engine_request
        num_tokens = metered.num_tokens
        at_limit = num_tokens == metered.max_tokens
        self.num_at_limit += at_limit
        self.num_stopped += not at_limit
        decode_s = metered.last_token_s - metered.first_token_s
        self.e2e_s.observe(metered.last_token_s - metered.arrived_s)
        self.queue_s.observe(metered.admitted_s - metered.arrived_s)
        self.prefill_s.observe(metered.first_token_s - metered.admitted_s)
        self.inference_s.observe(metered.last_token_s - metered.admitted_s)
        self.decode_s.observe(decode_s)
        self.request_token_s.observe(decode_s / (num_tokens - 1) if num_tokens > 1 else 0.0)
        self.prompt_tokens.observe(request.num_prompt_tokens)
        self.computed_tokens.observe(request.num_prompt_tokens - (request.num_cached_tokens or 0))
        self.generation_tokens.observe(num_tokens)
        self.max_generation_tokens.observe(num_tokens)
        self.choices.observe(1)
        self.preemptions.observe(request.num_preemptions)
        if metered.max_tokens is not None:
            self.asked_tokens.observe(metered.max_tokens)
