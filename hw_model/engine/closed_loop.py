"""The load that benchmarks measure: so many clients, each sending its next request at once."""

from __future__ import annotations

from dataclasses import dataclass

from hw_model.engine.engine_core import EngineCore
from hw_model.engine.request import EngineRequest, RequestId

GOLDEN_RATIO = 0.618033988749895
"""Multiples of it modulo one fill an interval evenly."""


@dataclass(frozen=True, slots=True)
class ClosedLoopResult:
    """Means over the requests after warm-up.

    Attributes:
        ttft_s: Arrival to first token.
        tpot_s: Between tokens after the first; 0 for outputs of one token.
    """

    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True)
class ClosedLoopLoad:
    """What the clients send.

    Attributes:
        isl_tokens, osl_tokens: The longest prompt and output.
        concurrency: Clients.
        num_requests: In all, at least twice ``concurrency``; the first ``concurrency``, which all
            arrive at once, are warm-up.
        spread: Lengths fill ``[1 - spread, 1]`` of the longest evenly. With equal lengths clients
            fall into step, and their prompts queue behind each other as no real ones do.
    """

    isl_tokens: int
    osl_tokens: int
    concurrency: int
    num_requests: int
    spread: float = 0.2

    def lengths(self, number: int) -> tuple[int, int]:
        """Return prompt and output length of a request: a fixed sequence, evenly spread."""
        isl, osl = (
            longest * (1 - self.spread * (number * step % 1))
            for longest, step in (
                (self.isl_tokens, GOLDEN_RATIO),
                (self.osl_tokens, GOLDEN_RATIO * GOLDEN_RATIO),
            )
        )
        return max(1, round(isl)), max(1, round(osl))


def run_closed_loop(core: EngineCore, load: ClosedLoopLoad) -> ClosedLoopResult:
    """Run a load on an idle engine, which is left idle; no request shares a prefix.

    Raises:
        ConfigError: A request is longer than the engine's KV.
    """
    arrived: dict[RequestId, float] = {}
    num_gaps: dict[RequestId, int] = {}
    first: dict[RequestId, float] = {}
    ttft_s: list[float] = []
    tpot_s: list[float] = []

    def send(at_s: float) -> None:
        request_id = RequestId(str(len(arrived)))
        arrived[request_id] = at_s
        isl, osl = load.lengths(len(arrived))
        num_gaps[request_id] = osl - 1
        core.add(EngineRequest(request_id, isl, osl, ()), at_s)

    for _ in range(load.concurrency):
        send(0.0)
    while core.next_event_s is not None:
        for generated in core.advance(core.next_event_s):
            request_id, at_s = generated.request_id, generated.at_s
            first.setdefault(request_id, at_s)
            if not generated.finished:
                continue
            if int(request_id) >= load.concurrency:
                ttft_s.append(first[request_id] - arrived[request_id])
                tpot_s.append((at_s - first[request_id]) / max(1, num_gaps[request_id]))
            if len(arrived) < load.num_requests:
                send(at_s)
    return ClosedLoopResult(sum(ttft_s) / len(ttft_s), sum(tpot_s) / len(tpot_s))
