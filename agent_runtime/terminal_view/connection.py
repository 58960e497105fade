"""How the connection to a server is, as the screen tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connection:
    """It is there, or it is lost.

    Attributes:
        problem: What broke it; None while messages come.
        retry_in_s: Seconds until it is tried again.
    """

    problem: str | None = None
    retry_in_s: float = 0.0
