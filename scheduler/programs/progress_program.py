"""What Progress-TTL keeps of a program."""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.programs.program import Program

DECODE_BUFFER_TOKENS = 100
CONTINUOUS_SHARE = 0.9
"""Of its last prompt that must be found, for a program's cache to count as intact."""


class ProgressProgram:
    """A program, active or paused, and how it got on.

    Attributes:
        program: Its turns; active unless it ``is_paused``.
        replica: The one it is bound to, paused or not.
        was_paused: Whether it was ever active and then paused: else it is new.
        has_yielded: Whether it gave way to others at the end of its last segment.
        num_rounds: Turns with the cache intact since it was activated.
        num_rounds_since_ttl: The same since a TTL paused it.
        shared_tokens: Of its first prompt that others had computed.
        impact_s: What the loss of its context costs.
    """

    __slots__ = (
        "active_since_s",
        "ended_s",
        "first_token_s",
        "force_s",
        "has_yielded",
        "impact_s",
        "last_prompt_tokens",
        "num_cached_tokens",
        "num_rounds",
        "num_rounds_since_ttl",
        "program",
        "queued_s",
        "replica",
        "shared_tokens",
        "ttl_end_s",
        "was_paused",
    )

    def __init__(self, program: Program, replica: ReplicaId) -> None:
        self.program = program
        self.replica = replica
        self.was_paused = False
        self.has_yielded = False
        self.num_rounds = 0
        self.num_rounds_since_ttl = 0
        self.shared_tokens = 0
        self.impact_s = 0.0
        self.last_prompt_tokens = 0
        self.num_cached_tokens = 0  # of the turn under way
        self.first_token_s: float | None = None  # of the same
        self.active_since_s = 0.0
        self.ended_s = -float("inf")  # its last turn
        self.queued_s = 0.0
        self.force_s = float("inf")
        self.ttl_end_s = float("inf")

    @property
    def is_active(self) -> bool:
        """Whether its turns are dispatched when they come."""
        return not self.program.is_paused

    @property
    def private_tokens(self) -> float:
        """What it alone takes of a replica, with room to decode."""
        context = max(0, self.program.context_tokens - self.shared_tokens)
        return float(context + DECODE_BUFFER_TOKENS)

    def ended(self, num_prompt_tokens: int, now_s: float) -> int | None:
        """Take note of a turn's end; return by how much its prompt had grown, if that counts."""
        before = self.last_prompt_tokens
        if before == 0:
            self.shared_tokens = self.num_cached_tokens
        if self.num_cached_tokens >= CONTINUOUS_SHARE * before:
            self.num_rounds += 1
            self.num_rounds_since_ttl += 1
        self.last_prompt_tokens = num_prompt_tokens
        self.ended_s = now_s
        growth = num_prompt_tokens - before
        return growth if 0 < growth < before else None
