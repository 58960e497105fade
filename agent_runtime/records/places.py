"""Opens values that outlive the process, wherever they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from agent_runtime.records.records import Records
from agent_runtime.records.redis_store import open_redis_store
from agent_runtime.records.sqlite_store import open_sqlite_store
from agent_runtime.redis_access.urls import SCHEMES, RedisUrl


@asynccontextmanager
async def open_records(place: str, notice: Callable[[str], None]) -> AsyncIterator[Records]:
    """Open values; on the way out all are written.

    Args:
        place: A file, or a URL of a Redis.
        notice: Told of what is wrong with it.

    Raises:
        ConfigError: A URL that is none, or the client of Redis is not installed.
        JournalError: It can't be opened, or another process has it.
    """
    if place.startswith(SCHEMES):
        with open_redis_store(place) as store:
            if (problem := store.why_unsafe()) is not None:
                notice(f"journal {RedisUrl.of(place, ('prefix',)).name}: {problem}")
            async with _running(Records(store, notice)) as records:
                yield records
    else:
        with open_sqlite_store(Path(place)) as file:
            async with _running(Records(file, notice)) as records:
                yield records


@asynccontextmanager
async def _running(records: Records) -> AsyncIterator[Records]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(records.run)
        try:
            yield records
        finally:
            tasks.cancel_scope.cancel()
