"""The seam between turns and whoever counts them."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, Self

import anyio

from agent_runtime.errors import BackendError, RequestError, UpstreamRefusedError
from agent_runtime.gateway.dialect import DialectName, TurnUsage
from agent_runtime.gateway.error_mapping import http_error
from agent_runtime.gateway.waiting_line import WaitingLine
from agent_runtime.turns import TurnPlacement

FIRST_SERVER_ERROR = 500


class Outcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    ABORTED = "aborted"


class TurnCounts(Protocol):
    """Is told of requests that run turns."""

    def turn_arrived(self) -> None:
        """One waits to run."""
        ...

    def turn_placed(self, placement: TurnPlacement | None) -> None:
        """It does not wait any more: it runs, or it was refused or withdrawn."""
        ...

    def first_token(self, ttft_s: float) -> None:
        """Its first token came, so long after it arrived."""
        ...

    def request_ended(self, dialect: DialectName, outcome: Outcome, used: TurnUsage | None) -> None:
        """A request is over; what it used is known if it was answered."""
        ...


TURN_SPAN = "turn_span"
"""Where the state of a traced request has its ``TurnSpan``."""


class TurnSpan(Protocol):
    """Is told of one request that runs turns, for its trace."""

    def began(self, session_id: str) -> None:
        """It is known whose turn it is."""
        ...

    def placed(self, placement: TurnPlacement) -> None:
        """It runs; told again if it is tried again."""
        ...

    def first_token(self, ttft_s: float) -> None:
        """Its first token came, so long after it arrived."""
        ...

    def ended(self, outcome: Outcome, used: TurnUsage | None) -> None:
        """It is over."""
        ...


class WatchedTurn:
    """One request on its way, while the context lasts; one that nothing is told of was aborted.

    Args:
        counts: Told of it.
        dialect: It came in.
        line: In which it waits, if it is a newcomer's.
        span: Told of it too, where requests are traced.

    Attributes:
        outcome: How it ended, as far as is known.
        used: What it used, once it is answered.
        error_status: Of the error that ended it, None for none.
    """

    __slots__ = (
        "_counts", "_dialect", "_line", "_span", "_waiting", "error_status", "outcome", "used",
    )  # fmt: skip

    def __init__(
        self,
        counts: TurnCounts,
        dialect: DialectName,
        line: WaitingLine | None = None,
        span: TurnSpan | None = None,
    ) -> None:
        self._counts = counts
        self._span = span
        self._dialect = dialect
        self._line = line
        self._waiting = True
        self.outcome = Outcome.ABORTED
        self.used: TurnUsage | None = None
        self.error_status: int | None = None

    def __enter__(self) -> Self:
        self._counts.turn_arrived()
        if self._line is not None:
            self._line.joined(anyio.current_time())
        return self

    def __exit__(self, *_: object) -> None:
        self.placed(None)
        self._counts.request_ended(self._dialect, self.outcome, self.used)
        if self._span is not None:
            self._span.ended(self.outcome, self.used)

    def placed(self, placement: TurnPlacement | None) -> None:
        """It runs, or it never will."""
        if self._waiting:
            self._waiting = False
            self._counts.turn_placed(placement)
            if self._line is not None:
                waited_s = None if placement is None else placement.waited_s
                self._line.left(anyio.current_time(), waited_s)
        if self._span is not None and placement is not None:
            self._span.placed(placement)

    def first_token(self, ttft_s: float) -> None:
        """Its first token came."""
        self._counts.first_token(ttft_s)
        if self._span is not None:
            self._span.first_token(ttft_s)

    def broke(self, error: RequestError | BackendError) -> None:
        """It could not be run, or not to its end."""
        self.error_status = http_error(error).status  # not the error, which leads back here
        is_callers = isinstance(error, RequestError)
        if isinstance(error, UpstreamRefusedError):  # an engine that found what is wrong with it
            is_callers = error.status < FIRST_SERVER_ERROR
        self.outcome = Outcome.REFUSED if is_callers else Outcome.FAILED

    def answered(self, used: TurnUsage) -> None:
        """All of it was generated."""
        self.outcome, self.used = Outcome.ANSWERED, used
