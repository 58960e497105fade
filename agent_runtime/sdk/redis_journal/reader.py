"""Reads a journal out of Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from agent_runtime.errors import JournalError
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import Recorded
from agent_runtime.sdk.journaling.recorded_errors import RecordedError
from agent_runtime.sdk.journaling.rows import Beginning, SessionRow, StepRow, StepState
from agent_runtime.sdk.journaling.summaries import SessionSummary
from agent_runtime.sdk.journaling.texts import as_text
from agent_runtime.sdk.redis_journal.address import Address
from agent_runtime.sdk.redis_journal.owners import Owner
from agent_runtime.sdk.redis_journal.server import Server

AT_ONCE = 500
"""Commands that are asked in one round trip."""
SUMMARY = (
    *("session_id", "agent", "model", "closed_epoch_s", "state", "num_steps", "num_turns"),
    *("prompt_tokens", "cached_tokens", "output_tokens"),
    *("parent_id", "place", "opened_epoch_s", "last_epoch_s"),
)
"""Of a session: what its line says, and not its messages, which may be long."""


class RedisReader:
    """Implements ``Reader``.

    Args:
        server: Where.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._base = server.address.base

    @property
    def name(self) -> str:
        """What people call the journal."""
        return self._server.address.name

    def summaries(self, session_id: str | None = None) -> list[SessionSummary]:
        """Return all sessions, or all of one id."""
        if session_id is None:
            (keys,) = self._ask([("LRANGE", f"{self._base}:sessions", "0", "-1")])
        else:
            (keys,) = self._ask([("HVALS", f"{self._base}:id:{as_text(session_id)}")])
        ordered = sorted(int(key) for key in keys)
        told = self._ask([("HMGET", self._session(key), *SUMMARY) for key in ordered])
        return [SessionSummary.of(key, *fields) for key, fields in zip(ordered, told, strict=True)]

    def steps(self, session: int) -> list[StepRow]:
        """Return the steps of a session."""
        ((num_steps,),) = self._ask([("HMGET", self._session(session), "num_steps")])
        numbers = range(int(num_steps or 0))
        rows = self._ask([("HGETALL", self._step(session, number)) for number in numbers])
        return [_step(number, as_dict(row)) for number, row in zip(numbers, rows, strict=True)]

    def recorded(self, session: int, step: StepRow) -> Recorded:
        """Return what there is of a step."""
        place = f"{self._base}:messages:{session}:{step.number}"
        (records,) = self._ask([("LRANGE", place, "0", "-1")])
        told = [json.loads(record) for record in records]
        usages = [Usage(*record["tokens"]) for record in told if record["tokens"] is not None]
        messages = [record["message"] for record in told]
        return Recorded(messages, usages, step.state is StepState.ENDED)

    def beginning(self, session: int) -> Beginning:
        """Return what a session begins with."""
        names = ("parent", "forked_after", "num_kept", "added")
        ((parent, forked_after, num_kept, added),) = self._ask(
            [("HMGET", self._session(session), *names)]
        )
        if forked_after is None:
            return Beginning(None, 0, 0, json.loads(added))
        return Beginning(int(parent), int(forked_after), int(num_kept), json.loads(added))

    def went_on_without(self, session: int, left_at: int, until: int) -> bool:
        """Return whether a session's parent did something after it had left it to its error."""
        ((parent,),) = self._ask([("HMGET", self._session(session), "parent")])
        if parent is None:
            return False
        ((num_steps,), siblings) = self._ask(
            [
                ("HMGET", self._session(int(parent)), "num_steps"),
                ("LRANGE", f"{self._base}:children:{parent}", "0", "-1"),
            ]
        )
        numbers = range(int(num_steps or 0))
        steps = self._ask([("HGET", self._step(int(parent), number), "key") for number in numbers])
        if any(left_at < int(key) <= until for key in steps):
            return True
        later = [int(key) for key in siblings if left_at < int(key) <= until]
        counts = self._ask([("HMGET", self._session(key), "num_steps") for key in later])
        places = [
            f"{self._base}:messages:{key}:{number}"
            for key, (count,) in zip(later, counts, strict=True)
            for number in range(int(count or 0))
        ]
        return any(self._ask([("EXISTS", place) for place in places]))

    def is_written(self) -> bool:
        """Return whether some program writes it now."""
        now_ms = self._server.now_ms()
        return any(not owner.is_over(now_ms) for owner in self.owners())

    def owners(self) -> list[Owner]:
        """Return the programs that have the journal, or have not let go of it."""
        (tokens,) = self._ask([("SMEMBERS", f"{self._base}:owners")])
        ordered = sorted(tokens, key=int)
        found = self._ask([("HGETALL", self.place_of(token)) for token in ordered])
        return [
            Owner.of(token, as_dict(fields))
            for token, fields in zip(ordered, found, strict=True)
            if fields
        ]

    def place_of(self, token: str) -> str:
        """Return where a program's lease is."""
        return f"{self._base}:owner:{token}"

    def found(self, session: int, *, is_last: bool) -> SessionRow:
        """Return a session of an earlier life."""
        (answer,) = self._ask([("HGETALL", self._session(session))])
        fields = as_dict(answer)
        left_at = fields.get("left_at")
        return SessionRow(
            fields["agent"],
            fields.get("parent_id"),
            int(fields["num_kept"]),
            fields["added"],
            None if left_at is None else int(left_at),
            "closed_epoch_s" in fields,
            is_last,
        )

    def _session(self, key: int) -> str:
        return f"{self._base}:session:{key}"

    def _step(self, session: int, number: int) -> str:
        return f"{self._base}:step:{session}:{number}"

    def _ask(self, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """Return what commands that only read answer."""
        answers: list[Any] = []
        for first in range(0, len(commands), AT_ONCE):
            some = commands[first : first + AT_ONCE]
            answers.extend(self._server.patiently(partial(_asked, commands=some)))
        return answers


@contextmanager
def opened_redis_reader(url: str) -> Iterator[RedisReader]:
    """Open a journal to look into, whoever writes it meanwhile.

    Raises:
        ConfigError: The URL is none.
        JournalError: There is none, or none that we can read.
    """
    server = Server.at(Address.of(url))
    try:
        if not server.is_a_journal():
            raise JournalError(
                f"journal {server.address.name}: there is none; no program has written to it, or "
                "with another prefix or database"
            )
        yield RedisReader(server)
    finally:
        server.client.close()


def as_dict(answer: Any) -> dict[str, str]:  # noqa: ANN401 - a mapping, or names and values by turns
    """Return the fields of a hash, whichever protocol they came by."""
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _asked(client: Any, commands: Sequence[tuple[str, ...]]) -> list[Any]:  # noqa: ANN401 - redis'
    pipeline = client.pipeline(transaction=False)
    for words in commands:
        pipeline.execute_command(*words)
    answers: list[Any] = pipeline.execute()
    return answers


def _step(number: int, fields: dict[str, str]) -> StepRow:
    error = None
    if "error" in fields:
        status = fields.get("error_status")
        message = fields["error_message"]
        error = RecordedError(fields["error"], message, None if status is None else int(status))
    return StepRow(
        number,
        fields["kind"],
        fields["told"],
        fields["members"],
        int(fields["num_kept"]),
        fields["added"],
        StepState(fields["state"]),
        error,
    )
