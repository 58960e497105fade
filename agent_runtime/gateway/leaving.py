"""What runs until its client goes away, somebody cancels it, or the endpoint closes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any

import anyio
from anyio.abc import TaskGroup
from starlette.types import Receive, Scope

from agent_runtime.client_departure import Departure, departure_of
from agent_runtime.occurrence import Occurrence


class Leaving:
    """What runs until a client goes away, and why it was cancelled, if it was.

    Args:
        inside: Of all that runs.

    Attributes:
        client_left: The client went away.
        was_cancelled: Somebody else ended it.
        was_stopped: The endpoint closed before it was done.
    """

    __slots__ = ("_inside", "client_left", "was_cancelled", "was_stopped")

    def __init__(self, inside: anyio.CancelScope) -> None:
        self._inside = inside
        self.client_left = self.was_cancelled = self.was_stopped = False

    def leave(self) -> None:
        """Cancel all of it, since the client went away."""
        self.client_left = True
        self._inside.cancel()

    def cancel(self) -> None:
        """Cancel all of it for another reason."""
        self.was_cancelled = True
        self._inside.cancel()

    def stop(self) -> None:
        """Cancel all of it, since the endpoint closes."""
        self.was_stopped = True
        self._inside.cancel()


class AccompaniedLeaving(Leaving):
    """The same with tasks beside it, which are cancelled when it ends.

    Args:
        tasks: All of it.

    Attributes:
        is_alone: Whether there are none.
    """

    __slots__ = ("_tasks", "is_alone")

    def __init__(self, tasks: TaskGroup) -> None:
        super().__init__(tasks.cancel_scope)
        self._tasks = tasks
        self.is_alone = True

    def accompany(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run one."""
        self.is_alone = False
        self._tasks.start_soon(task)


def leave_on_disconnect(
    scope: Scope, receive: Receive, cancelled: Occurrence | None = None
) -> AbstractAsyncContextManager[Leaving]:
    """Cancel what runs inside when the client goes away, or somebody else ends it.

    Args:
        scope: The request's; with a ``Departure``, no task waits for the client.
        receive: Tells of the client where the scope has none.
        cancelled: By which others do; None where nobody can.
    """
    departure = departure_of(scope)
    if departure is None:
        return leave_accompanied(scope, receive, cancelled)
    return _LeavingAlone(departure, cancelled)


class _LeavingAlone:
    """A context from which what runs leaves with its client, without tasks beside it."""

    __slots__ = ("_cancelled", "_departure", "_inside", "_leaving")

    def __init__(self, departure: Departure, cancelled: Occurrence | None) -> None:
        self._departure, self._cancelled = departure, cancelled
        self._inside = anyio.CancelScope()
        self._leaving = Leaving(self._inside)

    async def __aenter__(self) -> Leaving:
        self._inside.__enter__()
        self._departure.listen(self._leaving.leave)
        if self._cancelled is not None:
            self._cancelled.listen(self._leaving.cancel)
        return self._leaving

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._departure.ignore(self._leaving.leave)
        if self._cancelled is not None:
            self._cancelled.ignore(self._leaving.cancel)
        return bool(self._inside.__exit__(exc_type, exc_value, traceback))


@asynccontextmanager
async def leave_accompanied(
    scope: Scope, receive: Receive, cancelled: Occurrence | None = None
) -> AsyncIterator[AccompaniedLeaving]:
    """Do the same where tasks may have to run beside what runs; see ``leave_on_disconnect``."""
    departure = departure_of(scope)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        leaving.leave()

    async with anyio.create_task_group() as tasks:
        leaving = AccompaniedLeaving(tasks)
        if departure is None:
            leaving.accompany(watch)
        else:
            departure.listen(leaving.leave)
        if cancelled is not None:
            cancelled.listen(leaving.cancel)
        try:
            yield leaving
        finally:
            if departure is not None:
                departure.ignore(leaving.leave)
            if cancelled is not None:
                cancelled.ignore(leaving.cancel)
        if not leaving.is_alone:  # to cancel costs more than all the rest of it
            tasks.cancel_scope.cancel()
