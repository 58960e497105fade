"""Reads and writes values for many tasks: what comes while one batch is under way shares the next.

A store that fails is tried again every second, with all that was to be written since, the latest of
each group: nobody has to stop for it, those who asked are told. One that can be read and not
written, as on a full disk, is read: with what waits to be written laid over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread  # noqa: TID251 - an fsync must not stop the others

from agent_runtime.clock import epoch_s
from agent_runtime.errors import JournalError
from agent_runtime.records.record_store import Change, RecordStore

T = TypeVar("T")

RETRY_S = 1.0
MAX_WAITING_BYTES = 64 << 20
"""Changes that wait for a store that fails; the oldest groups beyond are given up."""
LAST_BATCH_S = 5.0
"""For what is to be written when the process ends."""


@dataclass(slots=True)
class _Asked:
    """Something to be read.

    Attributes:
        read: Reads it.
        with_changes: Lays what could not be written over what was read.
        result: Once it was.
        problem: Why it could not be.
    """

    read: Callable[[], Any]
    with_changes: Callable[[Any, Mapping[str, Change]], Any] = lambda found, _: found
    result: Any = None
    problem: JournalError | None = None


@dataclass(slots=True)
class _Batch:
    """What is done in one go: first the changes, then the reading.

    Attributes:
        is_over: Set when it is done, or has failed.
        problem: Why its changes could not be written.
    """

    changes: dict[str, Change] = field(default_factory=dict)
    asked: list[_Asked] = field(default_factory=list)
    is_over: anyio.Event = field(default_factory=anyio.Event)
    problem: JournalError | None = None

    def add(self, group: str, change: Change) -> None:
        """Add a change after those that there are."""
        before = self.changes.get(group)
        self.changes[group] = change if before is None else before.then(change)


class Records:
    """Groups of values by name, see the module. Somebody runs ``run``.

    Args:
        store: Where they are.
        notice: Told when the store fails, and when it works again.
        epoch_s: Returns seconds since 1970.

    Attributes:
        life: A number that no other process with this store has, nor had.
        num_problems: Batches that failed.
    """

    def __init__(
        self,
        store: RecordStore,
        notice: Callable[[str], None],
        epoch_s: Callable[[], float] = epoch_s,
    ) -> None:
        self._store, self._notice, self._epoch_s = store, notice, epoch_s
        self.life = store.begin_life()
        self.num_problems = 0
        self._batch = _Batch()
        self._under_way: _Batch | None = None
        self._wanted = anyio.Event()
        self._asked = anyio.Event()
        self._write_problem: JournalError | None = None
        self._read_problem: JournalError | None = None
        self._problem_since_s: float | None = None
        self._problem_until_s = -math.inf

    @property
    def is_shared(self) -> bool:
        """Whether other processes write them too."""
        return self._store.is_shared

    @property
    def is_behind(self) -> bool:
        """Whether something could not be written, and waits for the store to work again."""
        return self._write_problem is not None

    @property
    def failing_s(self) -> float:
        """For how long the store has failed now; 0 while it works."""
        since_s = self._problem_since_s
        return 0.0 if since_s is None else anyio.current_time() - since_s

    @property
    def works_s(self) -> float:
        """For how long the store has worked now, as far as is known; 0 while it fails."""
        return 0.0 if self._has_problem else anyio.current_time() - self._problem_until_s

    def put(self, group: str, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Have values put into a group, soon, and the group kept for so long from then on."""
        self._batch.add(group, Change(values=dict(values), ttl_s=ttl_s))
        self._wanted.set()

    def drop(self, group: str) -> None:
        """Have a group go, soon."""
        self._batch.add(group, Change(drops=True))
        self._wanted.set()

    async def read(self, groups: Sequence[str]) -> list[dict[str, bytes]]:
        """Return the values of groups, with all that was put before; nothing of unknown ones.

        Raises:
            JournalError: The store can't be read now.
        """

        def laid_over(
            found: list[dict[str, bytes]], changes: Mapping[str, Change]
        ) -> list[dict[str, bytes]]:
            return [
                changes[group].applied(values) if group in changes else values
                for group, values in zip(groups, found, strict=True)
            ]

        return await self._ask(lambda: self._store.read(groups, self._epoch_s()), laid_over)

    async def names(self, prefix: str) -> list[str]:
        """Return the groups whose names begin so, in order.

        Raises:
            JournalError: The store can't be read now.
        """

        def laid_over(found: list[str], changes: Mapping[str, Change]) -> list[str]:
            more = {name for name, change in changes.items() if change.values}
            gone = {name for name, change in changes.items() if change.drops} - more
            return sorted({*found, *(name for name in more if name.startswith(prefix))} - gone)

        return await self._ask(lambda: self._store.names(prefix, self._epoch_s()), laid_over)

    async def settled(self) -> None:
        """Return once all that was put is durable.

        Raises:
            JournalError: It is not; it is tried again.
        """
        batch = self._batch if self._batch.changes else self._under_way
        if batch is not None:
            await batch.is_over.wait()
            if batch.problem is not None:
                raise JournalError(str(batch.problem)) from batch.problem

    async def run(self) -> None:
        """Carry out what is wanted until cancelled, and then what is left of it."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted = anyio.Event()
                await self._carry_out()
                if self._has_problem:
                    await self._pause()
                    self._try_again()
        finally:
            if self._batch.changes:
                with anyio.CancelScope(deadline=anyio.current_time() + LAST_BATCH_S, shield=True):
                    await self._carry_out()

    async def _ask(
        self, read: Callable[[], T], with_changes: Callable[[T, Mapping[str, Change]], T]
    ) -> T:
        if self._read_problem is not None:  # another try would take as long to fail
            raise JournalError(str(self._read_problem)) from self._read_problem
        asked, batch = _Asked(read, with_changes), self._batch
        batch.asked.append(asked)
        self._asked.set()
        self._wanted.set()
        await batch.is_over.wait()
        if asked.problem is not None:
            raise JournalError(str(asked.problem)) from asked.problem
        result: T = asked.result
        return result

    async def _carry_out(self) -> None:
        batch, self._batch = self._batch, _Batch()
        self._under_way = batch
        try:
            # Not cut short: a thread can't be, and what it writes must not be written twice.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(self._work, batch))  # noqa: TID251
            self._take_in(batch)
        finally:
            self._under_way = None
            batch.is_over.set()

    def _work(self, batch: _Batch) -> None:
        """Do it, in a thread."""
        try:
            if batch.changes:
                self._store.write(batch.changes, self._epoch_s())
        except JournalError as error:
            batch.problem = error
        unwritten = batch.changes if batch.problem is not None else {}
        for asked in batch.asked:
            try:
                asked.result = asked.with_changes(asked.read(), unwritten)
            except JournalError as error:
                asked.problem = error

    @property
    def _has_problem(self) -> bool:
        return self._write_problem is not None or self._read_problem is not None

    async def _pause(self) -> None:
        """Wait before the next try, unless somebody waits to read."""
        self._asked = anyio.Event()
        if not self._batch.asked:
            with anyio.move_on_after(RETRY_S):
                await self._asked.wait()

    def _try_again(self) -> None:
        """Have what failed done anew; where reading did, something is read to see if it works."""
        if self._read_problem is not None:
            self._batch.asked.append(_Asked(lambda: self._store.read([""], self._epoch_s())))
        self._wanted.set()

    def _take_in(self, batch: _Batch) -> None:
        """Note what came of a batch, and tell of problems that come and go."""
        had_problem = self._has_problem
        unread = next((one.problem for one in batch.asked if one.problem is not None), None)
        if batch.changes:
            self._write_problem = batch.problem
        if batch.asked:
            self._read_problem = unread
        problem = batch.problem or unread
        if problem is not None:
            self.num_problems += 1
            if not had_problem:
                self._problem_since_s = anyio.current_time()
                self._notice(f"{problem}; until then a restart would forget what comes")
        elif had_problem and not self._has_problem:
            self._problem_since_s, self._problem_until_s = None, anyio.current_time()
            self._notice("the journal works again")
        if batch.problem is not None:
            self._put_back(batch.changes)

    def _put_back(self, changes: Mapping[str, Change]) -> None:
        """Have changes wait again, before those that came since; the oldest too many are lost."""
        later, self._batch.changes = self._batch.changes, dict(changes)
        for group, change in later.items():
            self._batch.add(group, change)
        waiting = self._batch.changes
        num_bytes = sum(change.num_bytes for change in waiting.values())
        while num_bytes > MAX_WAITING_BYTES:
            num_bytes -= waiting.pop(next(iter(waiting))).num_bytes
