"""A view of a rack at work: fed by its decisions, read by whoever watches. Sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from agent_runtime.errors import TooManyViewersError
from agent_runtime.rack_view.gauges import ReplicaGauges
from agent_runtime.rack_view.kept_stories import LatestStories, told
from agent_runtime.rack_view.messages import Layout, Story, encoded
from agent_runtime.rack_view.rack_picture import RackPicture
from scheduler.decision import Decision
from scheduler.ids import TurnId

MAX_VIEWERS = 32
EXPLAINED_FOR_S = 60.0
"""After the last viewer has gone, of its own seconds: it may come back."""


class Explains(Protocol):
    """What leaves receipts of its decisions while ``explains`` is true: a ``ClusterScheduler``."""

    explains: bool


class RackView:
    """What viewers of one rack share.

    Args:
        layout: Returns what is watched, as it is now.
        gauges: Of the replicas.
        now_s: The runtime's clock.
        speed: Emulated seconds a second.

    Invariant: once it has an ``explainer``, that one explains while there are viewers and for
        ``EXPLAINED_FOR_S`` after, until the next decision then.
    """

    def __init__(
        self,
        layout: Callable[[], Layout],
        gauges: ReplicaGauges,
        now_s: Callable[[], float],
        speed: float = 1.0,
    ) -> None:
        self.layout = layout
        self.picture = RackPicture()
        self.num_viewers = 0
        self._gauges = gauges
        self._now_s = now_s
        self._speed = speed
        self._stories = LatestStories()
        self._explainer: Explains | None = None
        self._explains_until_s: float | None = None
        self._moment = -1
        self._frames: dict[int | None, tuple[bytes, int]] = {}  # of that moment, by what was read

    def explain_while_watched(self, explainer: Explains) -> None:
        """Have receipts made only while somebody watches: they cost more than the rest."""
        self._explainer = explainer
        explainer.explains = self.num_viewers > 0

    def take(self, decision: Decision) -> None:
        """Take in a decision."""
        over = self.picture.take(decision)
        if over is not None:
            self._stories.keep(over)
        until_s = self._explains_until_s
        if until_s is not None and decision.now_s > until_s and not self.num_viewers:
            self._explains_until_s = None
            if self._explainer is not None:
                self._explainer.explains = False

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Count a viewer while the context lasts.

        Raises:
            TooManyViewersError: On entry; there are as many as may be.
        """
        if self.num_viewers >= MAX_VIEWERS:
            raise TooManyViewersError(MAX_VIEWERS)
        self.num_viewers += 1
        if self._explainer is not None:
            self._explainer.explains = True
        try:
            yield
        finally:
            self.num_viewers -= 1
            self._explains_until_s = self._now_s() + EXPLAINED_FOR_S * self._speed

    def frame(self, read: int | None, moment: int) -> tuple[bytes, int]:
        """Return what changed since a version, encoded, and the version it leads to.

        Args:
            read: The version that was read last, None if none was.
            moment: Rises; who asks at the same one, having read the same, gets the same.
        """
        if moment != self._moment:
            self._moment = moment
            self._frames.clear()
        found = self._frames.get(read)
        if found is None:
            frame = self.picture.frame(read, self._now_s(), self._gauges.read())
            found = self._frames[read] = encoded(frame), self.picture.version
        return found

    def story(self, turn_id: str) -> Story | None:
        """Return what became of a turn so far, None if it is not known, or not any more."""
        story = self.picture.turns.under_way.get(TurnId(turn_id))
        if story is None:
            story = self._stories.find(TurnId(turn_id))
        return None if story is None else told(story)
