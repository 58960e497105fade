"""What chips of one scale-up domain take to exchange a layer's results.

Every cost is affine in the bytes: a latency that grows with the ranks, and the bytes that pass
through one chip's links. In the tables of 2, 4 and 8 H100 (aiconfigurator, SGLang's and NCCL's
all-reduces, 4 KB to 512 MB) the form is right to some 25 % in between; above 64 MB on 8 GPUs, where
NVSwitch adds up in the network, it is up to 40 % too long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from hw_model.claim import Band
from hw_model.specs import ChipSpec, RackSpec

LATENCY_RANKS = 8
"""Ranks that ``ChipSpec.all_reduce_latency_s`` is for."""

ALL_TO_ALL_LATENCIES = 2.5
"""A small all-to-all in small all-reduces: DeepEP on 8 H100 13 us, a captured all-reduce 5 us."""

ALL_TO_ALL_SHARE = 0.72
"""Bandwidth of an all-to-all over an all-reduce's: DeepEP's 210-230 GB/s over 297, on 8 H100."""


@dataclass(frozen=True, slots=True)
class AffineCost:
    """Seconds of one collective: ``latency_s + num_bytes * s_per_byte``.

    ``num_bytes`` is what one rank puts in.
    """

    latency_s: float
    s_per_byte: float


@dataclass(frozen=True, slots=True)
class Fabric:
    """The scale-up links of one chip, as reached.

    Attributes:
        bytes_per_s: One direction, in collectives.
        latency_s: A small all-reduce of eight ranks, launch included.
    """

    bytes_per_s: float
    latency_s: float

    @classmethod
    def of(cls, chip: ChipSpec, rack: RackSpec, band: Band) -> Self:
        """Return the links of a rack's chips; a rack may replace the chip's own number."""
        link = rack.link_bytes_per_s or chip.link_bytes_per_s
        return cls(link.at(band), chip.all_reduce_latency_s.at(band))

    def all_reduce(self, ranks: int) -> AffineCost:
        """Return the cost of an all-reduce; each byte passes a link twice, less its own share.

        Source:
            Ring and two-shot all-reduces alike move ``2 (n - 1) / n`` of the bytes (Patarasuk and
            Yuan 2009).
        """
        if ranks == 1:
            return AffineCost(0.0, 0.0)
        return AffineCost(self._latency_s(ranks), 2 * (ranks - 1) / ranks / self.bytes_per_s)

    def all_to_all(self, ranks: int) -> AffineCost:
        """Return the cost of an all-to-all, as between the chips that experts are spread over."""
        if ranks == 1:
            return AffineCost(0.0, 0.0)
        bytes_per_s = self.bytes_per_s * ALL_TO_ALL_SHARE
        return AffineCost(
            ALL_TO_ALL_LATENCIES * self._latency_s(ranks), (ranks - 1) / ranks / bytes_per_s
        )

    def send(self) -> AffineCost:
        """Return the cost of handing something to one other chip, as between pipeline stages."""
        return AffineCost(self._latency_s(2), 1 / self.bytes_per_s)

    def _latency_s(self, ranks: int) -> float:
        """Half of it launches, half goes with the doublings of ranks.

        NCCL takes 0.4, 0.6 and 1 of its latency on 2, 4 and 8 GPUs; one-shot kernels, 0.9, 0.9, 1.
        """
        return self.latency_s * (1 + math.log2(ranks) / math.log2(LATENCY_RANKS)) / 2
