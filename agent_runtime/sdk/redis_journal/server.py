"""A connection to a Redis, as a journal needs it: what it can do, and how safe it is set."""

from __future__ import annotations

import threading  # noqa: TID251 - see Server.patiently
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from agent_runtime.errors import ConfigError, JournalError
from agent_runtime.redis_access.errors import may_pass, server_errors
from agent_runtime.sdk.redis_journal.address import Address, Durability

T = TypeVar("T")
SCHEMA_VERSION = "1"
FIRST_WITH_WAITAOF = (7, 2)
SCRIPT_FIXES = {
    "NOTOWNER": "this program has lost its lease: it was not heard of for so long that another one "
    "took over its sessions, or Redis lost what it had; nothing of this program's is written any "
    "more; start it again",
    "LOSTWRITES": "Redis lost what it had said to have written, in a crash or as it failed over; "
    "set 'appendonly yes' and 'appendfsync always', and start the program again",
}
"""Of what ``batch.lua`` says is wrong."""
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
"""Before further tries, where the connection broke: Redis may be on its way back."""
SET_SAFELY = "redis-cli CONFIG SET appendonly yes, CONFIG SET appendfsync always, CONFIG REWRITE"
ELSE_ACCEPT = "or accept that with durability=server in the URL"


@dataclass(frozen=True, slots=True)
class Server:
    """A Redis.

    Attributes:
        client: Connections to it; any thread may use it.
        address: Of the journal.
    """

    client: redis.Redis
    address: Address

    @classmethod
    def at(cls, address: Address) -> Server:
        """Return one; nothing is connected yet.

        Raises:
            ConfigError: The URL has something that the client can't use.
        """
        try:
            client = redis.Redis.from_url(
                address.url, decode_responses=True, retry=Retry(NoBackoff(), 0)
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{address.name}: {error}; write redis://HOST:PORT/DB, rediss://HOST:PORT/DB or "
                "unix:///PATH?db=DB"
            ) from error
        return cls(client, address)

    def patiently(self, act: Callable[[redis.Redis], T]) -> T:
        """Do something, again and again for some seconds where Redis is gone for a moment.

        Real seconds, though a program may live in virtual time: Redis does not.

        Args:
            act: Must be the same when it is done twice.

        Raises:
            JournalError: It can't be done; says what to do.
        """
        for pause_s in PAUSES_S:
            try:
                return act(self.client)
            except (redis.RedisError, OSError) as error:
                if not may_pass(error):
                    with server_errors(self.address.name, SCRIPT_FIXES):
                        raise
            threading.Event().wait(pause_s)
        with server_errors(self.address.name, SCRIPT_FIXES):
            return act(self.client)

    def now_ms(self) -> int:
        """Return the time by the clock of Redis."""
        seconds, microseconds = self.patiently(lambda client: call(client, "TIME"))
        return int(seconds) * 1000 + int(microseconds) // 1000

    def is_a_journal(self) -> bool:
        """Return whether there is one already, which we can read.

        Raises:
            JournalError: Another version of Panjiu wrote it.
        """
        place = f"{self.address.base}:journal"
        version = self.patiently(lambda client: call(client, "HGET", place, "schema"))
        if version not in (None, SCHEMA_VERSION):
            raise JournalError(
                f"journal {self.address.name}: its schema has version {version}, and this Panjiu "
                f"reads {SCHEMA_VERSION}; use the Panjiu that wrote it, or another prefix"
            )
        return version is not None

    def checked_safe(self) -> bool:
        """See to it that what Redis has written is safe; return whether ``WAITAOF`` tells when.

        Raises:
            JournalError: It isn't; says how Redis is to be set.
        """
        facts = self.patiently(_facts)
        version = tuple(int(part) for part in str(facts["redis_version"]).split(".")[:2])
        if self.address.durability is Durability.SERVER:
            return False
        if not facts.get("aof_enabled"):
            raise self._unsafe(
                "appendonly is off: what it has is gone with its process", SET_SAFELY
            )
        policy = str(facts.get("maxmemory_policy", "noeviction"))
        if policy.startswith("allkeys"):
            raise self._unsafe(
                f"maxmemory-policy is {policy}: it drops keys when it is full",
                "redis-cli CONFIG SET maxmemory-policy noeviction, CONFIG REWRITE",
            )
        self._check_fsync(str(facts["redis_version"]), tells=version >= FIRST_WITH_WAITAOF)
        return version >= FIRST_WITH_WAITAOF

    def _check_fsync(self, version: str, *, tells: bool) -> None:
        """See to it that things come to the disk, and that we know when.

        Args:
            version: Of Redis.
            tells: Whether it tells when they are there.

        Raises:
            JournalError: They don't, or we don't.
        """
        policy = self.patiently(_fsync_policy)
        too_old = f"Redis {version} does not tell when things are on its disk (7.2 does)"
        if isinstance(policy, redis.ResponseError):
            if not tells:
                problem = f"does not let us look whether appendfsync is 'always' ({policy})"
                raise self._unsafe(f"{too_old}, and {problem}", "see to that") from policy
        elif policy == "no" or (policy != "always" and not tells):
            raise self._unsafe(
                f"appendfsync is {policy}{'' if tells else f', and {too_old}'}: a crash of the "
                "machine loses the last seconds",
                "redis-cli CONFIG SET appendfsync always, CONFIG REWRITE",
            )

    def _unsafe(self, problem: str, fix: str) -> JournalError:
        return JournalError(f"journal {self.address.name}: {problem}; {fix}, {ELSE_ACCEPT}")


def call(client: redis.Redis, *words: str) -> Any:  # noqa: ANN401 - as the command says
    """Carry out a command."""
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def _fsync_policy(client: redis.Redis) -> str | redis.ResponseError:
    """Return when Redis brings things to its disk, or why that is not told."""
    try:
        told = call(client, "CONFIG", "GET", "appendfsync")
    except redis.ResponseError as error:
        return error
    policy = told.get("appendfsync") if isinstance(told, dict) else next(iter(told[1:]), None)
    return redis.ResponseError("it tells nothing") if policy is None else str(policy)


def _facts(client: redis.Redis) -> dict[str, Any]:
    facts: dict[str, Any] = client.info()
    if facts.get("loading"):
        # Until then it says that it appends to no file.
        raise redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory")
    return facts
