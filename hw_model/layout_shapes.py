"""The layouts that a replica can have on a rack: what a plan chooses from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hw_model.parallelism import Parallelism, ep_degrees, tp_degrees
from hw_model.specs import ChipSpec, ModelSpec, Precision, RackSpec

KV_PRECISIONS = (Precision.BF16, Precision.FP8)
"""What serving engines keep KV in; narrower KV exists in papers."""


PIPELINE_STAGES = (1, 2, 4, 8)
"""More are for models that fit no domain."""


class Shape(NamedTuple):
    """One replica's layout."""

    parallelism: Parallelism
    precision: Precision
    kv_precision: Precision

    @property
    def precisions(self) -> tuple[Precision, Precision]:
        """Weights and KV: what a layout does to the quality of answers."""
        return self.precision, self.kv_precision


@dataclass(frozen=True, slots=True)
class Pins:
    """What of a layout is given; None leaves it open."""

    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    precision: Precision | None = None
    kv_precision: Precision | None = None


NO_PINS = Pins()


def shapes(rack: RackSpec, chip: ChipSpec, model: ModelSpec, pins: Pins) -> Iterator[Shape]:
    """Yield every shape within the pins, and what a pin makes impossible, to say why it is."""
    domain = int(min(rack.domain_chips.value, rack.num_chips.value))
    spreads = list(_spreads(model, pins, domain))
    for precision in [pins.precision] if pins.precision else chip.precisions():
        for kv_precision in [pins.kv_precision] if pins.kv_precision else KV_PRECISIONS:
            for spread in spreads:
                yield Shape(spread, precision, kv_precision)


def _spreads(model: ModelSpec, pins: Pins, domain_chips: int) -> Iterator[Parallelism]:
    for tp in [pins.tp] if pins.tp else tp_degrees(model, domain_chips):
        for pp in [pins.pp] if pins.pp else PIPELINE_STAGES:
            for ep in [pins.ep] if pins.ep else [1, *ep_degrees(model, tp, domain_chips)]:
                spread = Parallelism(tp, pp, ep)
                if pins.pp or not _is_idle_choice(spread, domain_chips):
                    yield spread


def _is_idle_choice(spread: Parallelism, domain_chips: int) -> bool:
    """Tell whether a parallelism is impossible, whatever the model."""
    return spread.num_chips > domain_chips or (spread.pp > 1 and spread.ep > spread.tp)
