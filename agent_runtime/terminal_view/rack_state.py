"""What the messages of a rack view add up to; no I/O."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from agent_runtime.errors import WireFormatError
from agent_runtime.rack_view.messages import (
    Frame,
    LatestRow,
    Layout,
    MoveRow,
    ReplicaRow,
    SeriesPoint,
    SessionRow,
    Totals,
)
from agent_runtime.terminal_view.view_messages import ViewMessage

RATE_WINDOW_S = 10.0
"""Rates are over the last so many seconds of the rack's time, or the last two frames if longer."""
MAX_SAMPLES = 300
MAX_RECENT = 200
MAX_WAITING = 500
WAITING_STATES = ("held", "prefill")
"""In which a session waits for a first token; those held come first."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How fast the rack was between two frames, a second of its time.

    Attributes:
        turns: That ended.
        prompt_tokens, output_tokens: Of them.
        held: Sessions held at the later frame.
    """

    turns: float
    prompt_tokens: float
    output_tokens: float
    held: int


@dataclass(frozen=True, slots=True)
class RackPicture:
    """The rack at one moment.

    Attributes:
        now_s: Of the rack's time.
        replicas: In the layout's order.
        num_in_state: Sessions by the layout's states.
        waiting: Sessions that wait for a first token, held ones first, the longest first; at most
            ``MAX_WAITING``.
        recent: Turns sent and KV pulled, newest first.
        series: In the layout's order; None where nothing ended lately.
        rates: Over the last seconds; None before there are two frames.
        samples: Oldest first.
    """

    layout: Layout
    now_s: float
    replicas: tuple[ReplicaRow, ...]
    num_in_state: tuple[int, ...]
    waiting: tuple[SessionRow, ...]
    recent: tuple[LatestRow | MoveRow, ...]
    series: tuple[SeriesPoint | None, ...]
    totals: Totals
    rates: Sample | None
    samples: tuple[Sample, ...]


class RackState:
    """Takes frames, gives pictures.

    Args:
        layout: Of the rack.

    Invariant: every session is in ``_sessions`` and, under its state there, in ``_in_state``.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._frame: Frame | None = None
        self._sessions: dict[str, SessionRow] = {}
        self._in_state: list[dict[str, SessionRow]] = [{} for _ in layout.states]
        self._recent: deque[LatestRow | MoveRow] = deque(maxlen=MAX_RECENT)
        self._counted: deque[tuple[float, Totals]] = deque()
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)

    def take(self, frame: Frame) -> None:
        """Take in a frame.

        Raises:
            WireFormatError: It does not fit the layout; nothing of it is taken in.
        """
        _check(frame, self._layout)
        self._take_sessions(frame)
        if frame.whole:
            self._recent.clear()  # it may tell of those under way again
        self._recent.extendleft(sorted([*frame.latest, *frame.moves], key=_began_s))
        self._count(frame)
        self._frame = frame

    def picture(self) -> RackPicture | None:
        """Return the rack as it is; None before the first frame."""
        frame = self._frame
        if frame is None:
            return None
        return RackPicture(
            layout=self._layout,
            now_s=frame.t,
            replicas=tuple(frame.replicas),
            num_in_state=tuple(map(len, self._in_state)),
            waiting=tuple(self._waiting()),
            recent=tuple(self._recent),
            series=tuple(frame.series),
            totals=frame.totals,
            rates=self._rates(frame),
            samples=tuple(self._samples),
        )

    def sessions(self) -> dict[str, SessionRow]:
        """Return all sessions there are, by id."""
        return dict(self._sessions)

    def check_invariants(self) -> None:
        """Raise AssertionError if the state contradicts itself."""
        again = {key: row for rows in self._in_state for key, row in rows.items()}
        assert again == self._sessions  # noqa: S101 - that is what it is for
        assert sum(map(len, self._in_state)) == len(self._sessions)  # noqa: S101

    def _take_sessions(self, frame: Frame) -> None:
        if frame.whole:
            self._sessions.clear()
            for rows in self._in_state:
                rows.clear()
        for session_id in frame.gone:
            self._forget(session_id)
        for row in frame.sessions:
            self._forget(row.id)
            self._sessions[row.id] = self._in_state[row.state][row.id] = row

    def _forget(self, session_id: str) -> None:
        row = self._sessions.pop(session_id, None)
        if row is not None:
            del self._in_state[row.state][session_id]

    def _waiting(self) -> list[SessionRow]:
        found: list[SessionRow] = []
        states = self._layout.states
        for name in WAITING_STATES:
            if name in states:
                rows = self._in_state[states.index(name)].values()
                left = MAX_WAITING - len(found)
                found += heapq.nsmallest(left, rows, key=lambda r: (r.since_s, r.id))
        return found

    def _count(self, frame: Frame) -> None:
        """Add a sample, and forget counts that no rate needs any more."""
        counted, now_s = self._counted, frame.t
        if counted and now_s > counted[-1][0]:
            self._samples.append(self._sample(counted[-1], frame))
        if not counted or now_s > counted[-1][0]:
            counted.append((now_s, frame.totals))
        while len(counted) > 2 and counted[1][0] <= now_s - RATE_WINDOW_S:  # noqa: PLR2004 - from, to
            counted.popleft()

    def _rates(self, frame: Frame) -> Sample | None:
        oldest = self._counted[0]
        return self._sample(oldest, frame) if frame.t > oldest[0] else None

    def _sample(self, since: tuple[float, Totals], frame: Frame) -> Sample:
        (then_s, before), now = since, frame.totals
        over_s = frame.t - then_s
        return Sample(
            turns=(now.turns - before.turns) / over_s,
            prompt_tokens=(now.prompt_tokens - before.prompt_tokens) / over_s,
            output_tokens=(now.output_tokens - before.output_tokens) / over_s,
            held=self._num_held(),
        )

    def _num_held(self) -> int:
        states = self._layout.states
        return len(self._in_state[states.index("held")]) if "held" in states else 0


class WatchedRack:
    """Takes messages as they come: a layout begins anew, as after a lost connection."""

    def __init__(self) -> None:
        self._state: RackState | None = None

    def take(self, message: ViewMessage) -> None:
        """Take in a message.

        Raises:
            WireFormatError: A frame before a layout, or one that does not fit it.
        """
        if isinstance(message, Layout):
            self._state = RackState(message)
        elif self._state is None:
            raise WireFormatError("a frame of the rack view came before its layout")
        else:
            self._state.take(message)

    def picture(self) -> RackPicture | None:
        """Return the rack as it is; None before the first frame."""
        return None if self._state is None else self._state.picture()


def _began_s(entry: LatestRow | MoveRow) -> float:
    return entry.dispatched_s if isinstance(entry, LatestRow) else entry.start_s


def _check(frame: Frame, layout: Layout) -> None:
    """Raise WireFormatError unless all that a frame names is in the layout."""
    if len(frame.replicas) != len(layout.replicas):
        raise WireFormatError(
            f"a frame's replicas: {len(frame.replicas)}, the layout has {len(layout.replicas)}"
        )
    if len(frame.series) != len(layout.series):
        raise WireFormatError(
            f"a frame's series: {len(frame.series)}, the layout has {len(layout.series)}"
        )
    for number, gauges in enumerate(frame.replicas):
        if not 0 <= gauges.health < len(layout.healths):
            raise WireFormatError(f"a frame's replicas[{number}]: health {gauges.health} is none")
    for number, row in enumerate(frame.sessions):
        if not 0 <= row.state < len(layout.states):
            raise WireFormatError(f"a frame's sessions[{number}]: state {row.state} is none")
