"""Where time to first token is taken."""

from __future__ import annotations

from enum import StrEnum

from hw_model.claim import Band
from hw_model.specs import ChipSpec


class TtftBoundary(StrEnum):
    """Whose clock TTFT is read on.

    Published figures differ in this more than in anything else: between the two lie HTTP, the chat
    template, tokenising and the hand-over to the engine.
    """

    CLIENT = "client"
    ENGINE = "engine"

    def before_engine_s(self, chip: ChipSpec, band: Band) -> float:
        """Return the seconds a request is under way, by this clock, before the engine has it."""
        return chip.front_end_overhead_s.at(band) if self is TtftBoundary.CLIENT else 0.0
