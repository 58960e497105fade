"""A program's place among those that share a journal: taken, kept, given up, taken away."""

from __future__ import annotations

import threading  # noqa: TID251 - see Lease.kept
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from agent_runtime.errors import JournalError
from agent_runtime.sdk.redis_journal.owners import Owner
from agent_runtime.sdk.redis_journal.server import SCHEMA_VERSION, Server, call

RENEWALS_PER_LEASE = 3

RENEW = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local time = redis.call('TIME')
local now_ms = time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))
redis.call('HSET', KEYS[1], 'renewed_ms', now_ms)
return 1
"""
RETIRE = """
if redis.call('HGET', KEYS[1], 'renewed_ms') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """See the module.

    Attributes:
        server: Where the journal is.
        token: Under which the program writes.
    """

    server: Server
    token: str

    @classmethod
    def taken(cls, server: Server, now_epoch_s: float) -> Lease:
        """Take a place among the programs that have a journal, which is begun where there is none.

        Raises:
            JournalError: It can't be written, or another version of Panjiu wrote it.
        """
        base = server.address.base
        server.is_a_journal()
        place = f"{base}:journal"
        server.patiently(lambda client: call(client, "HSETNX", place, "schema", SCHEMA_VERSION))
        number = server.patiently(lambda client: call(client, "HINCRBY", place, "last_token", "1"))
        lease = cls(server, str(number))
        own = Owner.own(lease.token, now_epoch_s, server.address.lease_s, server.now_ms())

        def enter(client: redis.Redis) -> None:
            pipeline = client.pipeline(transaction=True)
            fields: dict[Any, Any] = {**own.fields(), "batches": "0", "answers": "[]"}
            pipeline.hset(lease.place, mapping=fields)
            pipeline.sadd(f"{base}:owners", lease.token)
            pipeline.execute()

        server.patiently(enter)
        return lease

    @property
    def place(self) -> str:
        """The key under which it is."""
        return f"{self.server.address.base}:owner:{self.token}"

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew it while the context is there.

        A thread does, in real time: a tool that computes for a minute, or a program in virtual
        time, still has its sessions. When the process stands still, so does the thread.
        """
        done = threading.Event()
        interval_s = self.server.address.lease_s / RENEWALS_PER_LEASE

        def renew() -> None:
            while not done.wait(interval_s):
                try:
                    if not self.renewed():
                        return  # as the next write will tell
                except JournalError:
                    # The next write tells what is wrong with Redis, if that still is so then.
                    continue

        thread = threading.Thread(target=renew, name="panjiu-journal-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def renewed(self) -> bool:
        """Renew it; return False if it has been taken away."""
        script = self.server.client.register_script(RENEW)
        return bool(self.server.patiently(lambda client: script([self.place], client=client)))

    def given_up(self) -> None:
        """Let other programs have all sessions at once.

        Raises:
            JournalError: Redis can't be told; they have to wait until the lease has run out.
        """
        base = self.server.address.base

        def leave(client: redis.Redis) -> None:
            pipeline = client.pipeline(transaction=True)
            pipeline.delete(self.place)
            pipeline.srem(f"{base}:owners", self.token)
            pipeline.execute()

        self.server.patiently(leave)

    def take_away(self, owner: Owner) -> bool:
        """Take another program's lease away; return False if it has renewed it meanwhile."""
        base = self.server.address.base
        script = self.server.client.register_script(RETIRE)
        keys = [f"{base}:owner:{owner.token}", f"{base}:owners"]
        words = [str(owner.renewed_ms), owner.token]
        return bool(self.server.patiently(lambda client: script(keys, words, client=client)))
