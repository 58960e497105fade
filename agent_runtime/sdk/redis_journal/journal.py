"""A journal in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

import anyio
import anyio.to_thread  # noqa: TID251 - the client blocks: virtual time has no sockets

from agent_runtime.clock import epoch_s
from agent_runtime.errors import JournalError
from agent_runtime.sdk.journaling.journal import StoredJournal
from agent_runtime.sdk.journaling.writer import Writer
from agent_runtime.sdk.redis_journal.address import Address
from agent_runtime.sdk.redis_journal.lease import Lease
from agent_runtime.sdk.redis_journal.reader import RedisReader
from agent_runtime.sdk.redis_journal.server import Server
from agent_runtime.sdk.redis_journal.store import RedisStore


class RedisJournal(StoredJournal):
    """A journal that several programs share; ``RedisJournal.open`` opens it."""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """Open a journal, or begin one; on the way out all is as safe as Redis makes it.

        Sessions that a program before has not let go of can be opened once its lease has run out,
        at once where its process was on this host and is gone.

        Args:
            url: ``redis://HOST:PORT/DB``, ``rediss://`` (TLS) or ``unix:///PATH?db=DB``; in its
                query ``prefix`` (of keys; ``panjiu``), ``durability`` (``disk``, or ``server``:
                Redis as it is set) and ``lease_s`` (10).

        Raises:
            ConfigError: The URL is none.
            JournalError: Redis can't be reached, is not set to keep what it has, or has another
                version's journal; on the way out: something could not be written.
        """
        server = Server.at(Address.of(url))
        try:
            lease, store = await anyio.to_thread.run_sync(_taken, server)  # noqa: TID251
            writer = Writer(store)
            with lease.kept():
                try:
                    async with writer.running():
                        yield cls(writer)
                except BaseException:
                    # What is wrong is known already; others wait for the lease to run out.
                    with suppress(JournalError):
                        await _given_up(lease)
                    raise
                await _given_up(lease)
        finally:
            server.client.close()


def _taken(server: Server) -> tuple[Lease, RedisStore]:
    waits_for_disk = server.checked_safe()
    lease = Lease.taken(server, epoch_s())
    for owner in RedisReader(server).owners():
        if owner.process.is_known_gone():
            lease.take_away(owner)
    return lease, RedisStore(server, lease, waits_for_disk=waits_for_disk)


async def _given_up(lease: Lease) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(lease.given_up)  # noqa: TID251
