"""Where journals are: a file, or Redis; told apart by how they are named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeGuard

from agent_runtime.errors import ConfigError
from agent_runtime.redis_access.urls import SCHEMES
from agent_runtime.sdk.journal import Journal, NoJournal
from agent_runtime.sdk.journaling.store import Reader
from agent_runtime.sdk.sqlite_journal import SqliteJournal
from agent_runtime.sdk.sqlite_journal.store import opened_reader


@asynccontextmanager
async def opened_journal(journal: str | Path | Journal | None) -> AsyncIterator[Journal]:
    """Open a journal that is named; one that is open stays so afterwards.

    Raises:
        ConfigError: Its name is none, or something is not installed.
        JournalError: It can't be opened; on the way out: can't be written.
    """
    if journal is None:
        yield NoJournal()
    elif _is_in_redis(journal):
        with _redis_installed():
            from agent_runtime.sdk.redis_journal import RedisJournal  # noqa: PLC0415 - an extra
        async with RedisJournal.open(journal) as in_redis:
            yield in_redis
    elif isinstance(journal, str | Path):
        async with SqliteJournal.open(journal) as in_file:
            yield in_file
    else:
        yield journal


@contextmanager
def opened_to_read(journal: str | Path) -> Iterator[Reader]:
    """Open a journal to look into, whoever writes it meanwhile.

    Raises:
        ConfigError: Its name is none, or something is not installed.
        JournalError: There is none, or none that we can read.
    """
    if _is_in_redis(journal):
        with _redis_installed():
            from agent_runtime.sdk.redis_journal.reader import (  # noqa: PLC0415 - an extra
                opened_redis_reader,
            )
        with opened_redis_reader(journal) as in_redis:
            yield in_redis
    else:
        with opened_reader(Path(journal)) as in_file:
            yield in_file


def _is_in_redis(journal: str | Path | Journal) -> TypeGuard[str]:
    return isinstance(journal, str) and journal.startswith(SCHEMES)


@contextmanager
def _redis_installed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise ConfigError(
            "a journal in Redis needs redis, which is not installed: pip install 'panjiu[redis]'"
        ) from error
