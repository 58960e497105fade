"""Everything that a run has seen so far."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from agent_runtime.load_test.call_errors import CallFailedError
from agent_runtime.load_test.turn_record import SessionRecord, TurnRecord

RECENT_TURNS = 200


@dataclass(slots=True)
class CountedErrors:
    """Errors of one kind.

    Attributes:
        kind: Theirs.
        count: How many, in the whole run.
        example: What the first one said.
        first_s: When that was.
    """

    kind: str
    count: int
    example: str
    first_s: float


class LoadLog:
    """Takes down turns, sessions and errors; whatever ends the run, it is there.

    Attributes:
        turns: All that were sent, in the order in which they were.
        sessions: Those that have ended.
        errors: By kind.
        num_started: Sessions and sub-agents.
        num_live: Those of them that have not ended.
        num_answered: Turns that got their replies.
        output_tokens: Of those.
        recent_ttft_s: Of the turns answered last.
    """

    def __init__(self) -> None:
        self.turns: list[TurnRecord] = []
        self.sessions: list[SessionRecord] = []
        self.errors: dict[str, CountedErrors] = {}
        self.num_started = self.num_live = 0
        self.num_answered = self.output_tokens = 0
        self.recent_ttft_s: deque[float] = deque(maxlen=RECENT_TURNS)

    @property
    def num_errors(self) -> int:
        """Errors of all kinds."""
        return sum(errors.count for errors in self.errors.values())

    def session_started(self) -> None:
        """Count a session."""
        self.num_started += 1
        self.num_live += 1

    def session_ended(self, session: SessionRecord) -> None:
        """Take down a session."""
        self.sessions.append(session)
        self.num_live -= 1

    def answered(self, turn: TurnRecord) -> None:
        """Count a turn that got its reply."""
        self.num_answered += 1
        self.output_tokens += turn.output_tokens
        self.recent_ttft_s.append(turn.ttft_s)

    def failed(self, turn: TurnRecord, error: CallFailedError) -> None:
        """Count a turn that did not."""
        known = self.errors.get(error.kind)
        if known is None:
            example = f"{turn.session_id}, turn {turn.turn}: {error.message}"
            self.errors[error.kind] = CountedErrors(error.kind, 1, example, turn.ended_s)
        else:
            known.count += 1
