"""What can be wrong with a Redis, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import redis
import redis.exceptions

from agent_runtime.errors import JournalError

LOCKED = "Redis wants a password; name it: redis://USER:PASSWORD@HOST:PORT/DB"
FIXES = {
    "OOM": "Redis is full; raise its maxmemory, or remove what is not needed",
    "READONLY": "it is a replica, which can't be written; name the primary",
    "LOADING": "Redis reads its data after a start; wait until it is done",
    "MASTERDOWN": "it is a replica without its primary; name the primary",
    "MISCONF": "Redis can't save to its disk and so takes no writes; look at its log",
    "NOAUTH": LOCKED,
    "Protocol error: unauthenticated": LOCKED,
    "WRONGPASS": "Redis does not know this user or password; look at those in the URL",
    "NOPERM": "the user may not do that; let it, on the journal's keys",
    "WRONGTYPE": "the keys are another program's; take another database, or another prefix: "
    "?prefix=fleet",
    "MOVED": "it is a node of a cluster, and another one has this journal's keys; name that one",
    "CLUSTERDOWN": "the cluster is down; look at its nodes",
    "NOREPLICAS": "Redis misses replicas that it must have; look at them, or at "
    "min-replicas-to-write",
    "DB index is out of range": "Redis has fewer databases; name another one: redis://HOST:PORT/0",
    "unknown command": "the server has no such command; a journal needs Redis 6 or later, or "
    "Valkey",
}
NO_MORE: Mapping[str, str] = {}
LOST = "Redis can't be reached; start it, or look at the network and the URL"
REFUSED = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
"""Errors of the connection that no further try helps against."""


@contextmanager
def server_errors(name: str, more: Mapping[str, str] = NO_MORE) -> Iterator[None]:
    """Turn Redis' errors into ones that say what to do.

    Args:
        name: Of the journal.
        more: What to do about errors of our own scripts, by what these begin with.

    Raises:
        JournalError: Instead of ``redis.RedisError`` and ``OSError``.
    """
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise JournalError(f"journal {name}: {told(error, more)}") from error


def told(error: Exception, more: Mapping[str, str] = NO_MORE) -> str:
    """Return what went wrong and what to do; ``more`` as of ``server_errors``."""
    fixes = {**FIXES, **more}
    # The client cuts the code off some errors, and makes classes of others.
    code = {
        redis.exceptions.OutOfMemoryError: "OOM",
        redis.exceptions.ReadOnlyError: "READONLY",
        redis.exceptions.BusyLoadingError: "LOADING",
        redis.exceptions.MasterDownError: "MASTERDOWN",
        redis.exceptions.MovedError: "MOVED",
        redis.exceptions.NoPermissionError: "NOPERM",
        redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    }.get(type(error))
    text = str(error).rstrip(".") or type(error).__name__
    if isinstance(error, redis.exceptions.AuthenticationError):
        code = "WRONGPASS" if "invalid" in text else "NOAUTH"
    if code is None:
        code = next((known for known in fixes if text.startswith(known)), None)
    if code is None and _is_lost(error):
        return f"{text}: {LOST}"
    if code is None:
        return f"{text}: if the keys are as Panjiu wrote them, please report this"
    detail = text.removeprefix(code).strip() if code.isupper() else text
    return f"{detail}: {fixes[code]}" if detail else fixes[code]


def may_pass(error: Exception) -> bool:
    """Return whether the same may succeed in a moment: the connection, or Redis itself, is gone."""
    return _is_lost(error) and not isinstance(error, REFUSED)


def _is_lost(error: Exception) -> bool:
    return isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError)
