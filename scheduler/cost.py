"""One currency for all decisions: seconds to compute, pull or load a context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.step_time import StepShape, StepTimeModel

TABLE_TOKENS = 64
"""Steps are tabulated for every so many new tokens."""


@dataclass(frozen=True, slots=True)
class TransferCosts:
    """What moving KV costs.

    Attributes:
        kv_bytes_per_token: Of one token, on each chip of a replica; each moves its own share.
        link_bytes_per_s: Of one chip's interconnect, one direction, inside a domain.
        host_bytes_per_s: Of one chip's link to host memory, one direction.
        latency_s: Of one transfer.
        replicas_per_domain: Replicas that reach each other over the interconnect.
    """

    kv_bytes_per_token: float
    link_bytes_per_s: float
    host_bytes_per_s: float
    latency_s: float
    replicas_per_domain: int

    def pull_s(self, num_tokens: int) -> float:
        """Return the seconds to copy a context from another replica over an idle link."""
        return self.latency_s + num_tokens * self.kv_bytes_per_token / self.link_bytes_per_s

    def load_s(self, num_tokens: int) -> float:
        """Return the seconds to load a context from host memory over an idle link."""
        return self.latency_s + num_tokens * self.kv_bytes_per_token / self.host_bytes_per_s

    def same_domain(self, one: int, other: int) -> bool:
        """Return whether two replicas reach each other over the interconnect."""
        return one // self.replicas_per_domain == other // self.replicas_per_domain


PULL_LATENCY_S = 2e-3
"""Of one KV transfer between replicas: handshake and descriptors. Assumed, as of NIXL-like engines;
the bytes of a long context take ten times that."""


class CostModel(Protocol):
    """Seconds of one replica's work, as policies ask for them.

    Attributes:
        transfer: Of KV, between replicas and with host memory.
        decode_s: Of one token, alone on a replica, the reading of its context aside.
    """

    transfer: TransferCosts
    decode_s: float

    def beside_s(self, num_tokens: int, num_output_tokens: int, others: tuple[int, int]) -> float:
        """Return what decoding beside others costs a turn and them: each step reads all KV.

        Args:
            num_tokens: Its context.
            num_output_tokens: Steps that they share.
            others: How many decode there, and the tokens of their contexts.
        """
        ...

    def prefill_s(self, num_cached_tokens: int, num_prompt_tokens: int) -> float:
        """Return the seconds to the first token of a prompt, alone on a replica."""
        ...


class TabulatedCost:
    """The ``CostModel`` of known hardware, in O(1).

    Args:
        step_time: Of the replicas.
        transfer: Between them, and with host memory.
        max_num_batched_tokens: New tokens an engine computes in one step.

    Attributes:
        decode_s: Of one token, alone on a replica, the reading of its context aside.

    Source: sums of ``StepTimeModel`` over the steps of a chunked prefill, tabulated.
    """

    __slots__ = ("_chunk", "_kv_s", "_pair_s", "_partial_s", "_whole_s", "decode_s", "transfer")

    def __init__(
        self, step_time: StepTimeModel, transfer: TransferCosts, max_num_batched_tokens: int
    ) -> None:
        self.transfer = transfer
        self._chunk = max_num_batched_tokens

        def step_s(num_tokens: int) -> float:
            return step_time.step_s(StepShape(num_tokens, 0, 1e-9, 1, 0))

        one = step_time.step_s(StepShape(self._chunk, 0, 1e-9, 1, 1))
        self._whole_s = step_s(self._chunk)
        per_request_s = one - self._whole_s
        sizes = range(0, self._chunk + TABLE_TOKENS, TABLE_TOKENS)
        self._partial_s = [step_s(max(1, min(n, self._chunk))) + per_request_s for n in sizes]
        fixed_s, self._kv_s = step_time.decode_line(1)
        # Differences over a large shape, so that floors of the step time do not hide them.
        pairs = 1e9
        self._pair_s = (
            step_time.step_s(StepShape(self._chunk, 0, pairs, 1, 0)) - self._whole_s
        ) / pairs
        self.decode_s = fixed_s

    @classmethod
    def of(cls, deployment: Deployment, band: Band, max_num_batched_tokens: int) -> Self:
        """Return the costs of a deployment's replicas."""
        chip = deployment.chip
        link = deployment.rack.link_bytes_per_s or chip.link_bytes_per_s
        domain_chips = int(min(deployment.rack.domain_chips.at(band), deployment.num_chips))
        transfer = TransferCosts(
            kv_bytes_per_token=deployment.kv_bytes_per_token,
            link_bytes_per_s=link.at(band),
            host_bytes_per_s=chip.host_link_bytes_per_s.at(band),
            latency_s=PULL_LATENCY_S,
            replicas_per_domain=max(1, domain_chips // deployment.parallelism.num_chips),
        )
        return cls(StepTimeModel(deployment, band), transfer, max_num_batched_tokens)

    def beside_s(self, num_tokens: int, num_output_tokens: int, others: tuple[int, int]) -> float:
        """Return what decoding beside others costs a turn and them: each step reads all KV.

        Args:
            num_tokens: Its context.
            num_output_tokens: Steps that they share.
            others: How many decode there, and the tokens of their contexts.
        """
        num_others, num_their_tokens = others
        return self._kv_s * num_output_tokens * (num_their_tokens + num_others * num_tokens)

    def prefill_s(self, num_cached_tokens: int, num_prompt_tokens: int) -> float:
        """Return the seconds to the first token of a prompt, alone on a replica."""
        new = num_prompt_tokens - num_cached_tokens
        if new <= 0:
            new, num_cached_tokens = 1, num_prompt_tokens - 1
        whole, rest = divmod(new, self._chunk)
        seconds = whole * self._whole_s + self._pair_s * new * (num_cached_tokens + new / 2)
        if rest:
            seconds += self._partial_s[(rest + TABLE_TOKENS - 1) // TABLE_TOKENS]
        return seconds + (whole + 1) * self._kv_s * (num_cached_tokens + new / 2)
