"""An asyncio event loop whose clock jumps from timer to timer.

    anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})

runs unmodified anyio code in virtual time. Four rules make a run the same every time:

1. Time moves only when nothing is runnable, and then lands *exactly* on the earliest deadline. A
   clock rounded short of it livelocks anyio, whose ``CancelScope`` sets its timer again until
   ``loop.time() >= deadline``.
2. Timers with equal deadlines fire in the order in which they were set; the stock loop pops them in
   the order of a heap. The world moves after the timers of an instant.
3. Nothing outside wakes the loop: jobs for threads run inline, and a wake-up from another thread,
   or a socket, is an error.
4. Cancel scopes hash by age, so anyio cancels siblings in that order and not in that of their
   addresses.

What can't be simulated is a loud error: a deadlock, a livelock, a thread, a socket.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - this is an event loop
import heapq
import inspect
import itertools
import selectors
import socket
import threading  # noqa: TID251 - to refuse other threads
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Protocol, TypeVar

from typing_extensions import TypeVarTuple, Unpack, override

from agent_runtime.errors import DeadlockError, LivelockError, OutsideTimeError
from agent_runtime.simulation.anyio_hooks import anyio_in_virtual_time
from agent_runtime.simulation.virtual_clock import VirtualClock

RESOLUTION_S = 1e-9
MAX_POLLS_PER_INSTANT = 100_000
MAX_WAITING_SHOWN = 20

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class World(Protocol):
    """What happens in virtual time beside the timers of programs, e.g. an emulated rack."""

    @property
    def next_event_s(self) -> float | None:
        """When ``advance`` next has something to do; None while it has nothing."""
        ...

    def advance(self, now_s: float) -> None:
        """Let everything happen that is due by ``now_s``; ``next_event_s`` is later then."""
        ...


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module's docstring. Time starts at 0.

    Args:
        clock: Shared with the loops that ran before and come after; by default one of its own.
        world: Moves along while the loop runs.
        max_polls_per_instant: Iterations at one point in time before the run counts as livelocked.

    Invariant: ``time()`` never falls, and is the deadline of the timer, or the time of the world's
        event, that is being served.
    """

    _scheduled: list[_Timer]  # asyncio's heap of timers

    def __init__(
        self,
        *,
        clock: VirtualClock | None = None,
        world: World | None = None,
        max_polls_per_instant: int = MAX_POLLS_PER_INSTANT,
    ) -> None:
        self.clock = VirtualClock() if clock is None else clock
        self._world = world
        self._orders = itertools.count()
        self._loop_thread = threading.current_thread()
        self._violation: OutsideTimeError | None = None
        super().__init__(_JumpSelector(self._jump, self._raise_violation, max_polls_per_instant))
        self._clock_resolution = RESOLUTION_S

    @contextmanager
    def moving(self, world: World) -> Iterator[bool]:
        """Have a world move along while the context lasts; False if another one does already."""
        if self._world is not None:
            yield False
            return
        self._world = world
        try:
            yield True
        finally:
            self._world = None

    @override
    def time(self) -> float:
        """Return the virtual seconds since the clock's beginning."""
        return self.clock.now_s

    @override
    def run_forever(self) -> None:
        """Run until stopped, with anyio's hooks in place."""
        with anyio_in_virtual_time():
            super().run_forever()

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
        """Run a job at once; its result comes after the virtual time that it slept.

        Its real time would be different every run, so it counts for nothing.
        """
        future: asyncio.Future[T] = self.create_future()
        with self.clock.job():
            try:
                settle, outcome = future.set_result, func(*args)
            except Exception as error:  # noqa: BLE001 - the caller gets it, as from an executor
                settle, outcome = future.set_exception, error  # type: ignore[assignment]
            slept_s = self.clock.job_s
        if slept_s:
            self.call_later(slept_s, lambda: None if future.done() else settle(outcome))
        else:
            settle(outcome)
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
            self._violation = OutsideTimeError(
                "a thread woke the virtual-time loop: run the work inline, or sleep for its "
                "duration"
            )
        return self.call_soon(callback, *args, context=context)

    @override
    async def getaddrinfo(self, host: Any, port: Any, **kwargs: int) -> list[Any]:
        """Refuse, as every connection by name begins with this.

        Raises:
            OutsideTimeError: Always.
        """
        raise _no_sockets(host.decode() if isinstance(host, bytes) else host, port)

    @override
    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Refuse, as every connection by address begins with this.

        Raises:
            OutsideTimeError: Always.
        """
        raise _no_sockets(*address[:2])

    def _jump(self) -> None:
        deadline = self._scheduled[0].when() if self._scheduled else None
        event_s = None if self._world is None else self._world.next_event_s
        if self._world is not None and event_s is not None:
            if deadline is None or event_s < deadline:
                self.clock.move_to(event_s)
                self._world.advance(self.clock.now_s)
                return
        elif deadline is None:
            raise DeadlockError(_waiting(self))
        assert deadline is not None  # noqa: S101 - else one of the two above
        self.clock.move_to(deadline)

    def _raise_violation(self) -> None:
        if self._violation is not None:
            violation, self._violation = self._violation, None
            raise violation


def running_virtual_loop() -> VirtualTimeLoop | None:
    """Return the loop that runs, None if it is of another kind, or trio's."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, VirtualTimeLoop) else None


def _waiting(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Say where each task waits: in its own coroutine, and in the innermost that it awaits."""
    places = []
    for task in asyncio.all_tasks(loop):
        outer: Any = task.get_coro()
        inner = outer
        while inspect.iscoroutine(getattr(inner, "cr_await", None)):
            inner = inner.cr_await
        if inspect.iscoroutine(outer) and outer.cr_frame is not None:
            place = f"{outer.cr_frame.f_code.co_filename}:{outer.cr_frame.f_lineno}"
            places.append(f"{outer.__qualname__} at {place} waits in {inner.__qualname__}")
    return sorted(places)[:MAX_WAITING_SHOWN]


def _no_sockets(host: object, port: object) -> OutsideTimeError:
    return OutsideTimeError(
        f"a connection to {host}:{port}: real sockets have no place in virtual time. Clients that "
        "use httpx or httpx2 reach the emulated rack in it; for others run in real time"
    )


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
        if timeout is None or timeout > 0:
            self._polls = 0
            self._jump()
            return []
        self._polls += 1
        if self._polls > self._max_polls:
            self._polls = 0  # leaves the runner room to cancel what is left
            raise LivelockError(self._max_polls)
        return []
