"""Writes a store for many tasks: what comes while one commit is under way shares the next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread  # noqa: TID251 - an fsync must not stop the others

from agent_runtime.errors import JournalError
from agent_runtime.sdk.journaling.store import Job, Store

T = TypeVar("T")


@dataclass(slots=True)
class _Batch:
    """What is written at once.

    Attributes:
        jobs: In order.
        results: Of the jobs, once ``is_over``.
        is_over: Set when it is committed, or has failed.
        problem: Why it has failed.
    """

    jobs: list[Job[Any]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    is_over: anyio.Event = field(default_factory=anyio.Event)
    problem: JournalError | None = None


class Writer:
    """See the module.

    Jobs are done in the order in which they come; a batch has all that came while the one before
    was written. After one that failed nothing is written any more, so there are no gaps.

    Args:
        store: Written in a thread of its own, where there are threads.

    Attributes:
        name: Of the journal, for messages.
    """

    def __init__(self, store: Store) -> None:
        self.name = store.name
        self._store = store
        self._batch = _Batch()
        self._wanted = anyio.Event()
        self._is_stopping = False
        self._problem: JournalError | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write while the context is there; on the way out all is committed.

        What is raised within passes as it is, and in no group.

        Raises:
            JournalError: Something could not be written, and nobody has been told yet.
        """
        raised: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised again outside of the group
                raised = error
            finally:
                self._is_stopping = True
                self._wanted.set()
        if raised is not None:
            raise raised
        if self._problem is not None:
            raise self._again(self._problem)

    def post(self, job: Job[Any]) -> None:
        """Have something done before all that comes later; nobody waits for it.

        Raises:
            JournalError: Something before could not be written.
        """
        if self._problem is not None:
            raise self._again(self._problem)
        if self._is_stopping:
            raise JournalError(
                f"journal {self.name} is closed; leave sessions before their runtime"
            )
        self._batch.jobs.append(job)
        self._wanted.set()

    async def do(self, job: Job[T]) -> T:
        """Have something done; return its result once it is on disk.

        Raises:
            JournalError: It can't be written.
        """
        batch, index = self._batch, len(self._batch.jobs)
        self.post(job)
        await batch.is_over.wait()
        if batch.problem is not None:
            raise self._again(batch.problem)
        return cast("T", batch.results[index])

    async def _write(self) -> None:
        # Shielded: what was posted is written, whatever becomes of the tasks that posted it.
        with anyio.CancelScope(shield=True):
            while True:
                await self._wanted.wait()
                if not self._batch.jobs:
                    return
                batch, self._batch = self._batch, _Batch()
                if not self._is_stopping:
                    self._wanted = anyio.Event()
                try:
                    batch.results = await anyio.to_thread.run_sync(  # noqa: TID251
                        self._store.carry_out, batch.jobs
                    )
                except Exception as error:  # noqa: BLE001 - those who wait are told, all of them
                    self._problem = batch.problem = self._batch.problem = self._told(error)
                    self._batch.jobs.clear()
                    self._batch.is_over.set()
                batch.is_over.set()

    def _told(self, error: Exception) -> JournalError:
        if isinstance(error, JournalError):
            return error
        told = JournalError(f"journal {self.name}: {error!r}: please report this, it is our bug")
        told.__cause__ = error
        return told

    @staticmethod
    def _again(problem: JournalError) -> JournalError:
        error = JournalError(str(problem))
        error.__cause__ = problem
        return error
