"""The rack and its sessions as the scheduler's decisions tell them, for any number of readers.

Sans-IO. A decision costs O(1) and what it carries; a reader gets what changed since it last read in
O(changes), and keeps nothing here: who reads seldom gets the latest state of what changed, once.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TypeVar

from agent_runtime.errors import InternalError
from agent_runtime.measurement.turn_stories import TurnStories, TurnStory
from agent_runtime.rack_view.messages import (
    MAX_LATEST,
    SERIES,
    Frame,
    LatestRow,
    MoveRow,
    ReplicaRow,
    SessionRow,
    Totals,
    told_s,
)
from agent_runtime.rack_view.seen_session import NOWHERE, SeenSession
from agent_runtime.rack_view.series_window import SeriesWindow, series_point
from scheduler.commands import Dispatch, Pull, Refuse
from scheduler.decision import Decision
from scheduler.events import Event, PrefillEnded, SessionClosed, TurnArrived, TurnEnded
from scheduler.ids import SessionId

MAX_SESSIONS = 20_000
"""Beyond so many, those that have been idle for longest are forgotten."""

MAX_GONE, MAX_MOVES = 20_000, 2_000
"""That are remembered for readers; who comes later than the last of them gets a whole frame."""

SERIES_WINDOW_S = 5.0
"""Percentiles are over so long at least."""

T = TypeVar("T")


class RackPicture:
    """What there is to see.

    Args:
        max_sessions: How many it knows at a time; those with turns under way are always known.
        max_gone: How many that are gone it remembers for readers.

    Attributes:
        version: Rises with everything that can be seen.
        turns: Those under way.

    Invariant: ``_sessions`` is in the order of their last change; ``_idle`` has those in a gap, in
        the order in which they came into it; no id is in ``_gone`` and in ``_sessions``.
    """

    def __init__(self, max_sessions: int = MAX_SESSIONS, max_gone: int = MAX_GONE) -> None:
        self.version = 0
        self.turns = TurnStories()
        self._max_sessions, self._max_gone = max_sessions, max_gone
        self._sessions: OrderedDict[SessionId, SeenSession] = OrderedDict()
        self._idle: OrderedDict[SessionId, None] = OrderedDict()
        self._gone: OrderedDict[SessionId, int] = OrderedDict()
        self._floor = 0  # who has read no further has missed what is gone
        self._moves: deque[tuple[int, MoveRow]] = deque(maxlen=MAX_MOVES)
        self._latest: deque[tuple[int, TurnStory]] = deque(maxlen=MAX_LATEST)
        self._series = {name: SeriesWindow() for name in SERIES}
        self._num_turns = self._num_prompt = self._num_cached = self._num_output = 0
        self._num_closed = self._num_refused = 0

    @property
    def num_sessions(self) -> int:
        """Sessions that are shown."""
        return len(self._sessions)

    def totals(self) -> Totals:
        """Return the counts."""
        return Totals(
            self._num_turns,
            self._num_prompt,
            self._num_cached,
            self._num_output,
            self._num_closed,
            self._num_refused,
        )

    def take(self, decision: Decision) -> TurnStory | None:
        """Take in a decision.

        Returns:
            The turn that is over by it, if one is.
        """
        over = self.turns.take(decision)
        self._happened(decision.event, decision.now_s, over)
        for command in decision.commands:
            if isinstance(command, Dispatch):
                self._dispatched(command)
            elif isinstance(command, Pull):
                self._pulled(command, decision.now_s)
            elif isinstance(command, Refuse):
                self._refused(over)
        return over

    def frame(self, since: int | None, now_s: float, replicas: Sequence[ReplicaRow]) -> Frame:
        """Return what changed; O(changes), for nobody O(sessions).

        Args:
            since: The version that was read last, None if none was.
            now_s: Not before the latest decision.
            replicas: What they say of themselves, by id.
        """
        read = self.version if since is None else since
        whole = since is None or since < self._floor
        version = 0 if since is None or whole else since
        lately_s = now_s - SERIES_WINDOW_S
        return Frame(
            t=told_s(now_s),
            whole=whole,
            replicas=replicas,
            sessions=self._changed(version),
            gone=[] if whole else self._gone_since(version),
            moves=self._moves_since(version, now_s, whole=whole),
            latest=[_latest_row(story) for story in _since(self._latest, version)],
            series=[series_point(window.since(read, lately_s)) for window in self._series.values()],
            totals=self.totals(),
        )

    def series_since(self, version: int) -> list[list[float]]:
        """Return the seconds of what ended after a version, in the order of ``SERIES``."""
        return [window.since(version) for window in self._series.values()]

    def check_invariants(self) -> None:
        """Raise if the picture contradicts itself. O(sessions).

        Raises:
            InternalError: Names the invariant.
        """
        versions = [session.version for session in self._sessions.values()]
        if versions != sorted(set(versions)):
            raise InternalError("sessions are not in the order of their last change")
        idle = {name for name, session in self._sessions.items() if session.is_idle}
        if idle != set(self._idle):
            raise InternalError("idle sessions are not those without turns")
        if self._gone.keys() & self._sessions.keys():
            raise InternalError("a session is there and gone")

    def _happened(self, event: Event, now_s: float, over: TurnStory | None) -> None:
        if isinstance(event, TurnArrived):
            if over is None:
                self._arrived(event, now_s)
        elif isinstance(event, PrefillEnded):
            self._prefilled(event, now_s)
        elif isinstance(event, TurnEnded):
            if over is not None:
                self._ended(event, over)
        elif isinstance(event, SessionClosed):
            self._closed(event.session_id, now_s)

    def _arrived(self, event: TurnArrived, now_s: float) -> None:
        session = self._sessions.get(event.session_id)
        if session is None:
            session = SeenSession(event.session_id, event.parent_id, now_s)
            self._sessions[event.session_id] = session
            self._gone.pop(event.session_id, None)
        session.arrived(self.turns.under_way[event.turn_id])
        self._idle.pop(event.session_id, None)
        self._touch(session)
        self._forget_if_many()

    def _dispatched(self, command: Dispatch) -> None:
        story = self.turns.under_way.get(command.turn_id)
        session = None if story is None else self._sessions.get(story.session)
        if story is None or session is None:
            return
        session.dispatched(story)
        self._touch(session)
        self._latest.append((self.version, story))

    def _prefilled(self, event: PrefillEnded, now_s: float) -> None:
        story = self.turns.under_way.get(event.turn_id)
        session = None if story is None else self._sessions.get(story.session)
        if story is None or session is None:
            return
        self._num_prompt += story.prompt_tokens
        self._num_cached += event.num_cached_tokens
        if event.first_token_seen:
            session.prefilled(story)
            self._touch(session)
            self._series["ttft_s"].add(self.version, now_s, now_s - story.arrived_s)

    def _ended(self, event: TurnEnded, story: TurnStory) -> None:
        session = self._sessions.get(story.session)
        if session is None or story.ended_s is None:
            return
        session.ended(story, event.num_context_tokens)
        self._touch(session)
        if story.cached_tokens is not None:
            num_tokens = _num_output_tokens(event, story)
            self._num_turns += 1
            self._num_output += num_tokens
            if num_tokens > 1 and story.prefilled_s is not None:
                tpot_s = (story.ended_s - story.prefilled_s) / (num_tokens - 1)
                self._series["tpot_s"].add(self.version, story.ended_s, tpot_s)
        if session.is_idle:
            self._idle[story.session] = None
            if session.closes:
                self._close(session, story.ended_s)
            self._forget_if_many()

    def _closed(self, session_id: SessionId, now_s: float) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            return
        session.closes = True
        if session.is_idle:
            self._close(session, now_s)

    def _close(self, session: SeenSession, now_s: float) -> None:
        """Count a session that will not return, and show it no more."""
        self.version += 1
        self._num_closed += 1
        last_s = session.last_ended_s
        if last_s is not None and session.parent_id is None and not session.failed:
            self._series["jct_s"].add(self.version, now_s, last_s - session.opened_s)
        self._remove(session.session_id)

    def _forget_if_many(self) -> None:
        if len(self._sessions) > self._max_sessions and self._idle:
            self._remove(next(iter(self._idle)))

    def _remove(self, session_id: SessionId) -> None:
        del self._sessions[session_id]
        del self._idle[session_id]
        self.version += 1
        self._gone[session_id] = self.version
        if len(self._gone) > self._max_gone:
            _, self._floor = self._gone.popitem(last=False)

    def _pulled(self, command: Pull, now_s: float) -> None:
        session = self._sessions.get(command.session_id)
        tokens = 0 if session is None else session.context_tokens
        self.version += 1
        row = MoveRow(
            command.session_id,
            command.source_id,
            command.replica_id,
            told_s(now_s),
            told_s(command.ready_s),
            tokens,
        )
        self._moves.append((self.version, row))

    def _refused(self, story: TurnStory | None) -> None:
        self.version += 1
        self._num_refused += 1
        session = None if story is None else self._sessions.get(story.session)
        if session is not None:
            session.failed = True

    def _touch(self, session: SeenSession) -> None:
        self.version += 1
        session.changed(self.version)
        self._sessions.move_to_end(session.session_id)

    def _changed(self, version: int) -> list[SessionRow]:
        rows = []
        for session in reversed(self._sessions.values()):
            if session.version <= version:
                break
            rows.append(session.row())
        rows.reverse()
        return rows

    def _moves_since(self, version: int, now_s: float, *, whole: bool) -> list[MoveRow]:
        moves = _since(self._moves, version)
        return [move for move in moves if move.ready_s > now_s] if whole else moves

    def _gone_since(self, version: int) -> list[str]:
        gone: list[str] = []
        for session_id, at in reversed(self._gone.items()):
            if at <= version:
                break
            gone.append(session_id)
        gone.reverse()
        return gone


def _since(entries: deque[tuple[int, T]], version: int) -> list[T]:
    """Return what came after a version, in order."""
    found: list[T] = []
    for at, entry in reversed(entries):
        if at <= version:
            break
        found.append(entry)
    found.reverse()
    return found


def _latest_row(story: TurnStory) -> LatestRow:
    return LatestRow(
        story.turn,
        story.session,
        NOWHERE if story.replica is None else story.replica,
        told_s(story.arrived_s if story.dispatched_s is None else story.dispatched_s),
        told_s(story.held_s),
        story.expected_cached_tokens,
    )


def _num_output_tokens(event: TurnEnded, story: TurnStory) -> int:
    if event.num_output_tokens is not None:
        return event.num_output_tokens
    return max(0, event.num_context_tokens - story.prompt_tokens)
