"""The event log read again: a line of it as the decision that was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import msgspec
from typing_extensions import override

from agent_runtime.errors import TraceError
from agent_runtime.undecodable import UNDECODABLE
from scheduler.commands import Command, Dispatch, Drop, Pull, Refuse, Release, Retain
from scheduler.decision import Decision
from scheduler.events import (
    Event,
    GapCause,
    GapHint,
    GapHinted,
    PrefillEnded,
    ReplicaDown,
    ReplicaUp,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.receipt import PricedOption, Receipt


class _DispatchLine(msgspec.Struct, tag_field="do", tag="dispatch"):
    turn: str
    replica: int
    cached_tokens: int = 0

    def command(self) -> Command:
        return Dispatch(
            TurnId(self.turn),
            ReplicaId(self.replica),
            num_expected_cached_tokens=self.cached_tokens,
        )


class _RefuseLine(msgspec.Struct, tag_field="do", tag="refuse"):
    turn: str
    limit_tokens: int

    def command(self) -> Command:
        return Refuse(TurnId(self.turn), 0, self.limit_tokens)


class _PullLine(msgspec.Struct, tag_field="do", tag="pull"):
    session: str
    source: int = msgspec.field(name="from")
    replica: int
    ready_s: float

    def command(self) -> Command:
        source, target = ReplicaId(self.source), ReplicaId(self.replica)
        return Pull(SessionId(self.session), source, target, self.ready_s)


class _RetainLine(msgspec.Struct, tag_field="do", tag="retain"):
    session: str
    replica: int

    def command(self) -> Command:
        return Retain(SessionId(self.session), ReplicaId(self.replica))


class _ReleaseLine(msgspec.Struct, tag_field="do", tag="release"):
    session: str
    replica: int

    def command(self) -> Command:
        return Release(SessionId(self.session), ReplicaId(self.replica))


class _DropLine(msgspec.Struct, tag_field="do", tag="drop"):
    session: str
    replica: int

    def command(self) -> Command:
        return Drop(SessionId(self.session), ReplicaId(self.replica))


_CommandLine: TypeAlias = (
    _DispatchLine | _RefuseLine | _PullLine | _RetainLine | _ReleaseLine | _DropLine
)


class _OptionLine(msgspec.Struct):
    replica: int
    wait_s: float
    move_s: float
    load_s: float
    prefill_s: float
    crowd_s: float
    decode_s: float
    loss_s: float
    cached_tokens: int
    dropped_sessions: int

    def option(self) -> PricedOption:
        return PricedOption(
            ReplicaId(self.replica),
            self.wait_s,
            self.move_s,
            self.load_s,
            self.prefill_s,
            self.crowd_s,
            self.decode_s,
            self.loss_s,
            self.cached_tokens,
            self.dropped_sessions,
        )


class _ReceiptLine(msgspec.Struct):
    turn: str
    chosen: int | None
    due: bool
    options: list[_OptionLine]

    def receipt(self) -> Receipt:
        chosen = None if self.chosen is None else ReplicaId(self.chosen)
        options = tuple(option.option() for option in self.options)
        return Receipt(TurnId(self.turn), chosen, options, self.due)


class _Line(msgspec.Struct, tag_field="event"):
    """What every line has; ``event`` tells the rest."""

    t: float
    do: Sequence[_CommandLine] = ()
    why: Sequence[_ReceiptLine] = ()

    def event(self) -> Event:
        raise NotImplementedError

    def decision(self) -> Decision:
        return Decision(
            self.t,
            self.event(),
            tuple(line.command() for line in self.do),
            tuple(line.receipt() for line in self.why),
        )


class _ArrivedLine(_Line, tag="turn_arrived", kw_only=True):
    turn: str
    session: str
    prompt_tokens: int
    output_tokens: int
    parent: str | None = None

    @override
    def event(self) -> Event:
        parent_id = None if self.parent is None else SessionId(self.parent)
        return TurnArrived(
            TurnId(self.turn),
            SessionId(self.session),
            self.prompt_tokens,
            self.output_tokens,
            parent_id,
        )


class _PrefilledLine(_Line, tag="prefill_ended", kw_only=True):
    turn: str
    cached_tokens: int
    first_token_seen: bool = True

    @override
    def event(self) -> Event:
        return PrefillEnded(TurnId(self.turn), self.cached_tokens, self.first_token_seen)


class _EndedLine(_Line, tag="turn_ended", kw_only=True):
    turn: str
    context_tokens: int

    @override
    def event(self) -> Event:
        return TurnEnded(TurnId(self.turn), self.context_tokens)


class _HintedLine(_Line, tag="gap_hinted", kw_only=True):
    session: str
    cause: GapCause
    expected_s: float | None

    @override
    def event(self) -> Event:
        return GapHinted(SessionId(self.session), GapHint(self.cause, expected_s=self.expected_s))


class _ClosedLine(_Line, tag="session_closed", kw_only=True):
    session: str

    @override
    def event(self) -> Event:
        return SessionClosed(SessionId(self.session))


class _WokenLine(_Line, tag="woken"):
    @override
    def event(self) -> Event:
        return Woken()


class _DownLine(_Line, tag="replica_down", kw_only=True):
    replica: int

    @override
    def event(self) -> Event:
        return ReplicaDown(ReplicaId(self.replica))


class _UpLine(_Line, tag="replica_up", kw_only=True):
    replica: int

    @override
    def event(self) -> Event:
        return ReplicaUp(ReplicaId(self.replica))


_DECODER = msgspec.json.Decoder(
    _ArrivedLine
    | _PrefilledLine
    | _EndedLine
    | _HintedLine
    | _ClosedLine
    | _WokenLine
    | _DownLine
    | _UpLine
)


def read_decisions(lines: Iterable[tuple[int, bytes]], path: str) -> Iterator[tuple[int, Decision]]:
    """Yield what an event log tells, in order, with the numbers of the lines.

    What decisions have and the log has not is left at its default: hashes of blocks, hints of gaps
    at the end of turns, how much a refused turn asked for.

    Args:
        lines: Of the log, with their numbers from 1.
        path: Its name, for errors.

    Raises:
        TraceError: A line that is none of an event log, or whose time is before that of the line
            above; names the line and the field.
    """
    latest_s = 0.0
    for number, line in lines:
        try:
            decision = _DECODER.decode(line).decision()
        except UNDECODABLE as error:
            problem, field = _where(str(error))
            raise TraceError(
                f"not a line of an event log, as --event-log writes it: {problem}",
                path=path,
                line=number,
                field=field,
            ) from error
        if decision.now_s < latest_s:
            problem = f"{decision.now_s} is before the {latest_s} of the line above"
            raise TraceError(problem, path=path, line=number, field="t")
        latest_s = decision.now_s
        yield number, decision


def _where(problem: str) -> tuple[str, str | None]:
    """Part what msgspec says into the problem and the field it is in."""
    said, _, place = problem.partition(" - at `$")
    field = place.rstrip("`").lstrip(".")
    return said, field or None
