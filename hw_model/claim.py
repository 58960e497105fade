"""A number about hardware never travels without its source, its trust and its band."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Band(StrEnum):
    """How well the machine performs within what is known: pessimistic, best guess, optimistic."""

    LOW = "low"
    BASE = "base"
    HIGH = "high"


class Trust(StrEnum):
    """How far to believe a number, best first."""

    MEASURED = "measured"
    VENDOR = "vendor"
    SOURCE_CODE = "source_code"
    PRESS = "press"
    INFERRED = "inferred"
    ASSUMED = "assumed"


class Claim(BaseModel):
    """One number with where it comes from.

    Attributes:
        value: Best guess, SI units.
        low: Value on the pessimistic machine; for a latency that is the *larger* number.
            None when the number is known.
        high: Value on the optimistic machine, likewise.
        source: Where it comes from, or how it was inferred.
        trust: How far to believe it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(gt=0)
    low: float | None = Field(default=None, gt=0)
    high: float | None = Field(default=None, gt=0)
    source: str = Field(min_length=1)
    trust: Trust

    def at(self, band: Band) -> float:
        """Return the value on the machine of ``band``."""
        if band is Band.LOW and self.low is not None:
            return self.low
        if band is Band.HIGH and self.high is not None:
            return self.high
        return self.value
