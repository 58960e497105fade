"""Requests that come when they come, on replicas whose steps take fixed times.

A peer's engine takes the same: one :class:`Case` configures both, so limits can't differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import override

from hw_model.engine.engine_core import EngineCore
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.step_time import StepShape

SHARED_TOKENS, SHARED_BY = 64, 0.3
"""A system prompt at the start of some requests."""

TRACE_BLOCK_TOKENS = 16
"""Of the requests drawn here."""

OWN_IDS = 1 << 20
"""Ids that are one request's own; more than it can have blocks."""

OWN_ENGINES = (
    ("macro-stepping", True, False),
    ("peer's prices", True, True),
    ("every token", False, False),
)
"""Name, whether it macro-steps, and whether a step costs what it does in the peer."""


@dataclass(frozen=True, slots=True)
class Case:
    """Replicas that take requests in turn.

    Attributes:
        kv_blocks: Of one replica. By default what vLLM 0.19 has for Llama-3.1-8B on an RTX 4090.
        prefill_s: What a step takes that computes prompts,
        decode_s: what it takes that decodes; one that does both takes both.
    """

    num_replicas: int = 1
    kv_blocks: int = 2_588
    block_size_tokens: int = 16
    max_num_batched_tokens: int = 2_048
    max_num_seqs: int = 256
    prefill_s: float = 20e-3
    decode_s: float = 25e-3
    prefix_caching: bool = True


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """One request; ``block_hashes`` are those of its leading full blocks."""

    arrives_s: float
    isl_tokens: int
    osl_tokens: int
    block_hashes: Sequence[int]


@dataclass(frozen=True, slots=True)
class Means:
    """Over all requests, in seconds; TPOT over those with more than one token."""

    ttft_s: float
    tpot_s: float
    e2e_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the requests."""

    means: Means
    num_preemptions: int
    num_prompt_tokens: int
    num_cached_tokens: int


class FixedStepTime:
    """Step times of a case.

    A step's sums don't tell whether anybody decodes beside a prompt. It is taken so, unless all are
    new or none has a context; what is left are steps with nothing but the rest of a prompt.
    """

    __slots__ = ("_decode_s", "_prefill_s")

    def __init__(self, case: Case) -> None:
        self._prefill_s, self._decode_s = case.prefill_s, case.decode_s

    def step_s(self, shape: StepShape) -> float:
        """Return the seconds of a step."""
        if shape.num_tokens == shape.num_sequences and not shape.num_new_requests:
            return self._decode_s
        if shape.kv_read_tokens == 0 or shape.num_sequences == shape.num_new_requests:
            return self._prefill_s
        return self._prefill_s + self._decode_s

    def decode_line(self, num_sequences: int) -> tuple[float, float]:  # noqa: ARG002 - fixed
        """Return the seconds of a decode step; context costs nothing."""
        return self._decode_s, 0.0


class PeerStepTime(FixedStepTime):
    """The peer's idea of which steps compute prompts.

    A request that is resumed after a preemption computes again what the cache has lost of its
    prompt *and output*. To us that is a prompt, as it is to a card; to the peer only if any of it
    is of the prompt, else it is decoding, however long. The peer also knows exactly who decodes.
    """

    __slots__ = ("core",)

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.core: EngineCore | None = None  # set once there is one

    @override
    def step_s(self, shape: StepShape) -> float:
        assert self.core is not None  # noqa: S101 - set by ``replicas``
        # Nothing public says whose tokens a step computes, and only an oracle needs to know.
        scheduled = self.core._plans[0].scheduled  # noqa: SLF001
        prompts = sum(
            request.num_computed_tokens - num_new < request.num_prompt_tokens
            for request, num_new, _ in scheduled
        )
        prefill_s = self._prefill_s if prompts else 0.0
        return prefill_s + (self._decode_s if prompts < len(scheduled) else 0.0)


def request_trace(num_requests: int, per_s: float, seed: int = 0) -> list[TimedRequest]:
    """Draw requests: Poisson arrivals, log-normal lengths as of chats, some with a common start."""
    rng = np.random.default_rng(seed)
    arrives_s = np.round(np.cumsum(rng.exponential(1 / per_s, num_requests)), 6)
    isl = np.clip(rng.lognormal(5.3, 0.9, num_requests), 4, 2_000).astype(int)
    osl = np.clip(rng.lognormal(6.2, 0.75, num_requests), 2, 2_000).astype(int)
    shares = rng.random(num_requests) < SHARED_BY
    num_common = SHARED_TOKENS // TRACE_BLOCK_TOKENS
    requests = []
    for number in range(num_requests):
        isl_tokens, osl_tokens = int(isl[number]), int(osl[number])
        shared = num_common if shares[number] and isl_tokens > SHARED_TOKENS else 0
        own = (number + 1) * OWN_IDS
        num_full = (isl_tokens + osl_tokens) // TRACE_BLOCK_TOKENS
        hashes = (*range(shared), *range(own + shared, own + num_full))
        requests.append(TimedRequest(float(arrives_s[number]), isl_tokens, osl_tokens, hashes))
    return requests


def write_mooncake(requests: Iterable[TimedRequest], target: Path) -> None:
    """Write drawn requests in Mooncake's form, which has ids for started blocks of the prompt."""
    with target.open("w", encoding="utf-8") as file:
        for number, request in enumerate(requests):
            started = -(-request.isl_tokens // TRACE_BLOCK_TOKENS)
            ids = list(request.block_hashes[:started])
            if len(ids) < started:  # the output doesn't fill the prompt's last block either
                ids.append((number + 1) * OWN_IDS + len(ids))
            line = {
                "timestamp": request.arrives_s * 1e3,
                "input_length": request.isl_tokens,
                "output_length": request.osl_tokens,
                "hash_ids": ids,
            }
            file.write(json.dumps(line) + "\n")


def replicas(
    case: Case, *, macro_stepping: bool = True, peer_prices: bool = False
) -> list[EngineCore]:
    """Return a case's engines, idle; with ``peer_prices`` steps are timed as the peer does."""
    return [_replica(case, macro_stepping, peer_prices) for _ in range(case.num_replicas)]


def _replica(case: Case, macro_stepping: bool, peer_prices: bool) -> EngineCore:  # noqa: FBT001
    step_time = PeerStepTime(case) if peer_prices else FixedStepTime(case)
    core = EngineCore(
        KvManager(
            case.kv_blocks, case.block_size_tokens, enable_prefix_caching=case.prefix_caching
        ),
        EngineLimits(case.max_num_batched_tokens, case.max_num_seqs),
        step_time,
        progress=False,
        macro_stepping=macro_stepping,
    )
    if isinstance(step_time, PeerStepTime):
        step_time.core = core
    return core


def run_requests(cores: Sequence[EngineCore], requests: Iterable[TimedRequest]) -> Outcome:
    """Give idle engines requests in turn, in order of arrival, and run them to the end."""
    arrived_s: list[float] = []
    num_gaps: list[int] = []
    first_s: dict[RequestId, float] = {}
    last_s: dict[RequestId, float] = {}

    def advance(core: EngineCore, to_s: float) -> None:
        for event in core.advance(to_s):
            first_s.setdefault(event.request_id, event.at_s)
            if event.finished:
                last_s[event.request_id] = event.at_s

    for number, request in enumerate(requests):
        core = cores[number % len(cores)]
        # Who comes at the end of a step, or with another, is there when the next step begins.
        advance(core, math.nextafter(request.arrives_s, -math.inf))
        engine_request = EngineRequest(
            RequestId(str(number)), request.isl_tokens, request.osl_tokens, request.block_hashes
        )
        core.add(engine_request, request.arrives_s)
        arrived_s.append(request.arrives_s)
        num_gaps.append(request.osl_tokens - 1)
    for core in cores:
        advance(core, math.inf)
    stats = [core.stats() for core in cores]
    return Outcome(
        _means(arrived_s, num_gaps, first_s, last_s),
        sum(of_core.num_preemptions for of_core in stats),
        sum(of_core.num_prompt_tokens for of_core in stats),
        sum(of_core.num_cached_tokens for of_core in stats),
    )


def _means(
    arrived_s: Sequence[float],
    num_gaps: Sequence[int],
    first_s: dict[RequestId, float],
    last_s: dict[RequestId, float],
) -> Means:
    ids = [RequestId(str(number)) for number in range(len(arrived_s))]
    first = np.fromiter(map(first_s.__getitem__, ids), np.float64)
    last = np.fromiter(map(last_s.__getitem__, ids), np.float64)
    arrived, gaps = np.array(arrived_s), np.array(num_gaps)
    many = gaps > 0
    tpot = (last - first)[many] / gaps[many]
    return Means(
        ttft_s=float((first - arrived).mean()),
        tpot_s=float(tpot.mean()) if len(tpot) else 0.0,
        e2e_s=float((last - arrived).mean()),
    )
