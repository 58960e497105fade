"""How an endpoint closes: first nobody is let in any more, then who is still inside is sent away.

Turns under way may come to their ends in between. All else, such as what is asked of sessions and
metrics, is answered until the server is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from agent_runtime.errors import BackendStoppedError


class Closing:
    """The requests under way that run turns, and whether others may begin.

    Attributes:
        has_begun: Nothing begins any more.
        was_cut: What was under way has been ended.

    Invariant: ``_stops`` has one entry for each request under way, and none once all were cut.
    """

    __slots__ = ("_idle", "_stops", "has_begun", "was_cut")

    def __init__(self) -> None:
        self.has_begun = self.was_cut = False
        self._stops: dict[Callable[[], None], None] = {}
        self._idle: anyio.Event | None = None  # while somebody waits for it

    @property
    def num_under_way(self) -> int:
        """Return how many requests run turns, or wait to."""
        return len(self._stops)

    def begin(self) -> None:
        """Let nothing begin from now on."""
        self.has_begun = True

    def unready(self) -> BackendStoppedError | None:
        """Return why nothing begins; None while it does."""
        return BackendStoppedError() if self.has_begun else None

    def check(self) -> None:
        """Raise if nothing begins any more.

        Raises:
            BackendStoppedError: So it is.
        """
        if self.has_begun:
            raise BackendStoppedError

    @contextmanager
    def under_way(self, stop: Callable[[], None]) -> Iterator[None]:
        """A request runs turns while the context lasts; ``stop`` ends it, if that is to be."""
        if self.was_cut:
            stop()
        else:
            self._stops[stop] = None
        try:
            yield
        finally:
            self._stops.pop(stop, None)
            if not self._stops and self._idle is not None:
                self._idle.set()

    async def until_idle(self) -> None:
        """Return once no request is under way."""
        while self._stops:
            self._idle = anyio.Event()
            await self._idle.wait()

    def cut(self) -> int:
        """End all that is under way, as well as what still comes; return how many that were."""
        self.has_begun = self.was_cut = True
        stops, self._stops = self._stops, {}
        for stop in stops:
            stop()
        return len(stops)
