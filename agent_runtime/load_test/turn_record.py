"""What a client saw of one turn, and of one session."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from enum import StrEnum


class SessionEnd(StrEnum):
    """How a session ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(slots=True)
class TurnRecord:
    """One model call. Times are seconds since the run began, NaN for what has not happened.

    Attributes:
        session_id: Of the client's session; a sub-agent's is its own.
        turn: Its number in the session, from 0.
        due_s: When the schedule has it; latencies count from here.
        wanted_prompt_tokens, wanted_output_tokens: What the script says.
        sent_s: When the client began to send it; later than ``due_s`` if the client was late.
        first_s, last_s: When the first and the last token came.
        ended_s: When the reply, or the attempt, was over.
        prompt_tokens, cached_tokens: As the server counts; None where it doesn't say.
        output_tokens: As the server counts, else chunks with text.
        first_tokens: That came with the first chunk.
        gaps_s: From a chunk with tokens to the next.
        gap_tokens: In each of those chunks.
        counts_known: Whether the server told how many tokens each chunk has.
        error: The kind of error, or None.
    """

    session_id: str
    turn: int
    due_s: float
    wanted_prompt_tokens: int
    wanted_output_tokens: int
    sent_s: float = math.nan
    first_s: float = math.nan
    last_s: float = math.nan
    ended_s: float = math.nan
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int = 0
    first_tokens: int = 0
    gaps_s: array[float] = field(default_factory=lambda: array("d"))
    gap_tokens: array[int] = field(default_factory=lambda: array("L"))
    counts_known: bool = False
    error: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it got a reply, or an error."""
        return not math.isnan(self.ended_s)

    @property
    def is_answered(self) -> bool:
        """Whether it got its whole reply."""
        return self.is_finished and self.error is None

    @property
    def ttft_s(self) -> float:
        """From when it was due to its first token."""
        return self.first_s - self.due_s

    @property
    def tpot_s(self) -> float:
        """``(last token - first token) / (output tokens - 1)``; NaN for fewer than two tokens."""
        more = self.output_tokens - 1
        return (self.last_s - self.first_s) / more if more > 0 else math.nan

    @property
    def e2e_s(self) -> float:
        """From when it was due to its last token."""
        return self.last_s - self.due_s


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session.

    Attributes:
        session_id: Of the client's session.
        is_sub_agent: Whether another session started it.
        due_s: When it was scheduled to start.
        ended_s: When its last turn, and all its sub-agents, were over.
        num_turns: Of its own that got their replies.
        end: How it ended.
    """

    session_id: str
    is_sub_agent: bool
    due_s: float
    ended_s: float
    num_turns: int
    end: SessionEnd
