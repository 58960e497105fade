"""How a session is to be served, beside what it says."""

from __future__ import annotations

from dataclasses import dataclass

from agent_runtime.errors import ConfigError
from agent_runtime.sdk.budget import Budget
from agent_runtime.session_headers import LEAST_URGENT, MOST_URGENT


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """See the module; None leaves it to the server.

    Attributes:
        priority: -64 to 64, smaller is more urgent.
        deadline_s: Seconds from now by which it should be done.
        budget: What it may spend.

    Raises:
        ConfigError: Not within these.
    """

    priority: int | None = None
    deadline_s: float | None = None
    budget: Budget | None = None

    def __post_init__(self) -> None:
        if self.priority is not None and not MOST_URGENT <= self.priority <= LEAST_URGENT:
            raise ConfigError(
                f"priority must be from {MOST_URGENT} to {LEAST_URGENT}, not {self.priority}"
            )
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigError(f"deadline_s must be above 0, not {self.deadline_s}")
