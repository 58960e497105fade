"""What changed in one step of a recording; neighbours can be merged."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from agent_runtime.rack_view.messages import MAX_LATEST, Frame, SeriesPoint

MAX_MOVES = 200
"""That a frame of a recording tells of, the newest."""


class RecordedSample:
    """A frame in the making.

    Args:
        frame: What changed since the sample before.
        values: Seconds of what ended since then, a list a series.

    Attributes:
        at_s: When.
        values: The same, compactly.
    """

    __slots__ = ("_frame", "_gone", "_latest", "_moves", "_sessions", "at_s", "values")

    def __init__(self, frame: Frame, values: Sequence[Sequence[float]]) -> None:
        self.at_s = frame.t
        self.values = [array("d", part) for part in values]
        self._frame = msgspec.structs.replace(frame, sessions=(), gone=(), moves=(), latest=())
        self._sessions = {row.id: row for row in frame.sessions}
        self._gone = dict.fromkeys(frame.gone)
        self._moves = list(frame.moves)[-MAX_MOVES:]
        self._latest = list(frame.latest)

    @property
    def num_rows(self) -> int:
        """Sessions that it tells of."""
        return len(self._sessions)

    def follow(self, earlier: RecordedSample) -> None:
        """Tell of what the sample before told of too, in its place."""
        if not self._frame.whole:
            kept = {i: row for i, row in earlier._sessions.items() if i not in self._gone}
            gone = {i: None for i in earlier._gone if i not in self._sessions}
            self._sessions = {**kept, **self._sessions}
            self._gone = {} if earlier._frame.whole else {**gone, **self._gone}
            self._frame = msgspec.structs.replace(self._frame, whole=earlier._frame.whole)
        self._moves = [*earlier._moves, *self._moves][-MAX_MOVES:]
        self._latest = [*earlier._latest, *self._latest][-MAX_LATEST:]
        self.values = [one + other for one, other in zip(earlier.values, self.values, strict=True)]

    def frame(self, series: Sequence[SeriesPoint | None]) -> Frame:
        """Return it as it is told.

        Args:
            series: Its percentiles.
        """
        return msgspec.structs.replace(
            self._frame,
            sessions=list(self._sessions.values()),
            gone=list(self._gone),
            moves=self._moves,
            latest=self._latest,
            series=series,
        )
