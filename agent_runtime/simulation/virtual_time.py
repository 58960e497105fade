"""An asyncio event loop whose clock jumps from timer to timer.

    anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})

runs unmodified anyio code in virtual time. Four rules make a run the same every time:

1. Time moves only when nothing is runnable, and then lands *exactly* on the earliest deadline. A
   clock rounded short of it livelocks anyio, whose ``CancelScope`` sets its timer again until
   ``loop.time() >= deadline``.
2. Timers with equal deadlines fire in the order in which they were set; the stock loop pops them in
   the order of a heap.
3. Nothing outside wakes the loop: jobs for an executor run inline, and a wake-up from another
   thread is an error.
4. Cancel scopes hash by age, so anyio cancels siblings in that order and not in that of their
   addresses.

What can't be simulated is a loud error: a deadlock, a livelock, a thread.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - this is an event loop
import heapq
import itertools
import selectors
import threading  # noqa: TID251 - to refuse other threads
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeVar

import anyio._backends._asyncio as anyio_asyncio
from typing_extensions import TypeVarTuple, Unpack, override

from agent_runtime.errors import DeadlockError, LivelockError, OutsideTimeError, VirtualTimeError

RESOLUTION_S = 1e-9
MAX_TIME_S = 8e6
"""Beyond it ``now + RESOLUTION_S == now`` in a float, and timers would never fire."""

MAX_POLLS_PER_INSTANT = 100_000

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module's docstring. Time starts at 0.

    Args:
        max_polls_per_instant: Iterations at one point in time before the run counts as livelocked.

    Invariant: ``time()`` never falls, and is the deadline of the timer that is being served.
    """

    _scheduled: list[_Timer]  # asyncio's heap of timers

    def __init__(self, *, max_polls_per_instant: int = MAX_POLLS_PER_INSTANT) -> None:
        self._now_s = 0.0
        self._orders = itertools.count()
        self._loop_thread = threading.current_thread()
        self._violation: OutsideTimeError | None = None
        super().__init__(_JumpSelector(self._jump, self._raise_violation, max_polls_per_instant))
        self._clock_resolution = RESOLUTION_S
        self._anyio_scope = anyio_asyncio.CancelScope
        anyio_asyncio.CancelScope = _scopes_by_age()  # type: ignore[misc]

    @override
    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._now_s

    @override
    def close(self) -> None:
        """Close the loop, and give anyio its own cancel scopes back."""
        anyio_asyncio.CancelScope = self._anyio_scope  # type: ignore[misc]
        super().close()

    @override
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer; equal deadlines are served in the order of the calls."""
        self._check_closed()  # type: ignore[attr-defined] # asyncio's own call_at begins so
        timer = _Timer(when, callback, args, self, context)
        timer.order = next(self._orders)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # noqa: SLF001 - as asyncio's own call_at ends
        return timer

    @override
    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """Run a job at once, in no virtual time; its real time would be different every run."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the caller gets it, as from an executor
            future.set_exception(error)
        return future

    @override
    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Queue a callback; from another thread it is delivered, and the run ends with an error."""
        if threading.current_thread() is not self._loop_thread:
            self._violation = OutsideTimeError()
        return self.call_soon(callback, *args, context=context)

    def _jump(self) -> None:
        deadline = self._scheduled[0].when()
        if deadline > MAX_TIME_S:
            raise VirtualTimeError(
                f"virtual time would pass {MAX_TIME_S:,.0f} s, where floats can't tell instants "
                "apart: is a sleep endless?"
            )
        self._now_s = max(self._now_s, deadline)

    def _raise_violation(self) -> None:
        if self._violation is not None:
            violation, self._violation = self._violation, None
            raise violation


class _Timer(asyncio.TimerHandle):
    """A timer ordered by deadline, then by age."""

    __slots__ = ("order",)
    order: int
    _scheduled: bool  # asyncio's: whether it is in the heap

    @override
    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        if not isinstance(other, _Timer):
            return NotImplemented
        return (self.when(), self.order) < (other.when(), other.order)


class _JumpSelector(selectors.BaseSelector):
    """Answers every wait with a jump of the clock and never asks the kernel."""

    def __init__(self, jump: Callable[[], None], check: Callable[[], None], max_polls: int) -> None:
        self._jump, self._check = jump, check
        self._max_polls = max_polls
        self._polls = 0
        self._keys: dict[int, selectors.SelectorKey] = {}

    @override
    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    @override
    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    @override
    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._check()
        if timeout is None:
            raise DeadlockError
        if timeout > 0:
            self._polls = 0
            self._jump()
            return []
        self._polls += 1
        if self._polls > self._max_polls:
            self._polls = 0  # leaves the runner room to cancel what is left
            raise LivelockError(self._max_polls)
        return []


def _scopes_by_age() -> type[anyio_asyncio.CancelScope]:
    """Return a class of cancel scopes whose place in a ``set`` depends on their age alone."""
    ages = itertools.count()

    class ScopeByAge(anyio_asyncio.CancelScope):
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as anyio's
            self._age = next(ages)
            super().__init__(*args, **kwargs)

        @override
        def __hash__(self) -> int:
            return self._age

    return ScopeByAge
