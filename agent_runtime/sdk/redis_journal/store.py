"""Carries out what a journal wants of Redis: a batch is one script, and one round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis
import redis.exceptions

from agent_runtime.errors import JournalError
from agent_runtime.sdk.journaling.store import (
    ClaimSession,
    Job,
    Look,
    Opening,
    OpenSession,
    Refused,
)
from agent_runtime.sdk.redis_journal.commands import command
from agent_runtime.sdk.redis_journal.lease import Lease
from agent_runtime.sdk.redis_journal.owners import Owner
from agent_runtime.sdk.redis_journal.reader import RedisReader, as_dict
from agent_runtime.sdk.redis_journal.server import Server, call

SCRIPT = files(__package__).joinpath("batch.lua").read_text(encoding="utf-8")
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
DISK_TIMEOUT_MS = 4000
"""How long Redis may take to have a batch on its disk."""
Answer = Sequence[str]


class RedisStore(RedisReader):
    """Implements ``Store``.

    Args:
        server: Where.
        lease: Of this program.
        waits_for_disk: Whether Redis is asked when a batch is on its disk.
    """

    def __init__(self, server: Server, lease: Lease, *, waits_for_disk: bool) -> None:
        super().__init__(server)
        self._lease = lease
        self._waits_for_disk = waits_for_disk
        self._num_batches = 0

    def carry_out(self, jobs: Sequence[Job[Any]]) -> list[Any]:
        """Do jobs; return their results. What is looked at is so once all others are done."""
        writes = [job for job in jobs if not isinstance(job, Look)]
        answers = iter(self._write(writes) if writes else ())
        results: list[Any] = []
        for job in jobs:
            is_answered = isinstance(job, OpenSession | ClaimSession)
            results.append(self._result(job, next(answers)) if is_answered else None)
        for index, job in enumerate(jobs):
            if isinstance(job, Look):
                results[index] = job.look(self)
        return results

    def _result(self, job: Job[Any], answer: Answer) -> Opening | Refused | int:
        """Return what a session's opening comes to."""
        while answer[0] == "held":
            now_ms = self._server.now_ms()
            holder = self._owner(answer[1])
            if holder is not None and not holder.is_over(now_ms):
                return self._refused(job, holder, now_ms)
            if holder is not None:
                self._lease.take_away(holder)
            (answer,) = self._write([job])
        last_key = int(answer[1])
        if not isinstance(job, OpenSession):
            return last_key
        key = int(answer[2])
        if answer[0] == "new":
            return Opening(key, last_key)
        return Opening(key, last_key, self.found(key, is_last=answer[3] == "1"), self.steps(key))

    def _owner(self, token: str) -> Owner | None:
        fields = as_dict(self._server.patiently(lambda c: call(c, "HGETALL", self.place_of(token))))
        return Owner.of(token, fields) if fields else None

    def _refused(self, job: Job[Any], holder: Owner, now_ms: int) -> Refused:
        session_id = command(job)[1]
        return Refused(
            f"session {session_id} in journal {self.name} is in use by {holder.told()}; wait until "
            "it is done, stop it, or use another id. If it is gone, its lease lasts another "
            f"{holder.left_s(now_ms):.1f} s"
        )

    def _write(self, jobs: Sequence[Job[Any]]) -> Sequence[Answer]:
        """Carry out jobs in one script; return the answers of those that have some.

        The script knows a batch that it has carried out by its number, so it can be sent again.

        Raises:
            JournalError: They were not, or are not known to be safe.
        """
        words = [self._lease.token, str(self._num_batches + 1)]
        for job in jobs:
            name, *arguments = command(job)
            words += [name, str(len(arguments)), *arguments]
        answers = self._server.patiently(lambda client: self._sent(client, words))
        self._num_batches += 1
        return answers

    def _sent(self, client: redis.Redis, words: Sequence[str]) -> Sequence[Answer]:
        pipeline = client.pipeline(transaction=False)
        pipeline.evalsha(SCRIPT_SHA, 1, self._base, *words)
        if self._waits_for_disk:
            pipeline.execute_command("WAITAOF", 1, 0, DISK_TIMEOUT_MS)  # type: ignore[no-untyped-call]
        answer, *on_disk = pipeline.execute(raise_on_error=False)
        if isinstance(answer, redis.exceptions.NoScriptError):
            client.script_load(SCRIPT)
            return self._sent(client, words)
        for told in (answer, *on_disk):
            if isinstance(told, Exception):
                raise told
        if on_disk and not on_disk[0][0]:
            raise JournalError(
                f"journal {self.name}: Redis did not have it on its disk within "
                f"{DISK_TIMEOUT_MS / 1000:g} s; look at its disk and log, and at appendfsync, "
                "which must be 'always' or 'everysec'"
            )
        return [tuple(some) for some in answer]
