"""Journals in Redis without sessions' programs, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import SessionOpened, StepBegun, StepKind
from agent_runtime.sdk.journaling.rows import StepRow
from agent_runtime.sdk.journaling.store import AddMessage, BeginStep, OpenSession
from agent_runtime.sdk.redis_journal.address import Address
from agent_runtime.sdk.redis_journal.lease import Lease
from agent_runtime.sdk.redis_journal.server import Server
from agent_runtime.sdk.redis_journal.store import RedisStore
from tests.redis_server import RedisServer

LONG_S = 3600
"""A lease that no test outlives, and nobody renews meanwhile."""


@dataclass
class Program:
    """A program that has a journal open, as far as Redis sees it."""

    server: RedisServer
    lease: Lease
    store: RedisStore

    def opened(self, session_id: str) -> Any:
        job = OpenSession(SessionOpened(session_id, "agent", "model"), 0, None, 0.0)
        (opening,) = self.store.carry_out([job])
        return opening

    def begun(self, session: int) -> None:
        row = StepRow.of(0, StepBegun(StepKind.RUN, "go", 0, ()))
        self.store.carry_out([BeginStep(session, row, 0.0)])

    def add(self, session: int, text: str) -> None:
        self.store.carry_out([AddMessage(session, 0, f'{{"content":"{text}"}}', Usage(1), 0.0)])

    def texts(self, session: int) -> list[str]:
        (step,) = self.store.steps(session)
        return [message["content"] for message in self.store.recorded(session, step).messages]

    def let_time_pass(self, seconds: float) -> None:
        """As if it had not been heard of for so long."""
        renewed_ms = int(self.server.client.hget(self.lease.place, "renewed_ms") or 0)
        self.server.client.hset(self.lease.place, "renewed_ms", str(renewed_ms - seconds * 1000))


@contextmanager
def program(server: RedisServer, prefix: str) -> Iterator[Program]:
    """Have a program that does not let go of what it has, as if it were killed or stood still."""
    at = Server.at(Address.of(server.place(prefix, f"lease_s={LONG_S}")))
    try:
        waits_for_disk = at.checked_safe()
        lease = Lease.taken(at, 0.0)
        yield Program(server, lease, RedisStore(at, lease, waits_for_disk=waits_for_disk))
    finally:
        at.client.close()
