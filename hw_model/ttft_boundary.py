"""Where time to first token is taken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hw_model.claim import Band
from hw_model.specs import ChipSpec


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """What a request's way to the engine takes: HTTP, chat template, tokenising, hand-over.

    Attributes:
        per_request_s: Whatever it says.
        per_token_s: On top, for every token of the prompt, cached or not.
    """

    per_request_s: float = 0.0
    per_token_s: float = 0.0

    def before_engine_s(self, num_prompt_tokens: int) -> float:
        """Return the seconds a prompt is under way before the engine has it."""
        return self.per_request_s + self.per_token_s * num_prompt_tokens


NO_FRONT_END = FrontEnd()


class TtftBoundary(StrEnum):
    """Whose clock TTFT is read on.

    Published figures differ in this more than in anything else: between the two lie HTTP, the chat
    template, tokenising and the hand-over to the engine.
    """

    CLIENT = "client"
    ENGINE = "engine"

    def front_end(self, chip: ChipSpec, band: Band) -> FrontEnd:
        """Return what, by this clock, lies before the engine."""
        if self is TtftBoundary.ENGINE:
            return NO_FRONT_END
        per_token = chip.front_end_token_overhead_s
        return FrontEnd(
            chip.front_end_overhead_s.at(band), 0.0 if per_token is None else per_token.at(band)
        )
