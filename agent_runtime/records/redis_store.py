"""Values in a Redis, written by any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent_runtime.errors import ConfigError
from agent_runtime.records.record_store import Change
from agent_runtime.redis_access.urls import RedisUrl

if TYPE_CHECKING:
    import redis

DEFAULT_PREFIX = "panjiu:gateway"
TIMEOUT_S = 2.0
"""For an answer; who waits for longer goes on without."""
SCAN_COUNT = 1_000
SPECIAL = frozenset("*?[]^-\\")
"""What means something in a pattern of Redis's."""


class RedisStore:
    """A ``RecordStore`` in a Redis; ``open_redis_store`` opens it. A group is a hash."""

    is_shared = True

    def __init__(self, client: redis.Redis, place: str, prefix: str) -> None:
        self._client, self._place = client, place
        self._lives, self._group = f"{prefix}:lives", f"{prefix}:group:"

    def begin_life(self) -> int:
        """Return this life's number."""
        with redis_errors(self._place):
            return int(self._client.incr(self._lives))

    def write(self, changes: Mapping[str, Change], now_epoch_s: float) -> None:  # noqa: ARG002 - protocol
        """Carry out changes in one transaction."""
        with redis_errors(self._place), self._client.pipeline(transaction=True) as pipe:
            for group, change in changes.items():
                key = f"{self._group}{group}"
                if change.drops:
                    pipe.delete(key)
                if change.values:
                    pipe.hset(key, items=_flat(change.values))
                    pipe.pexpire(key, max(1, round(change.ttl_s * 1000)))
            pipe.execute()

    def read(self, groups: Sequence[str], now_epoch_s: float) -> list[dict[str, bytes]]:  # noqa: ARG002
        """Return the values of groups."""
        with redis_errors(self._place), self._client.pipeline(transaction=False) as pipe:
            for group in groups:
                pipe.hgetall(f"{self._group}{group}")
            return [
                {name.decode(): value for name, value in values.items()}
                for values in pipe.execute()
            ]

    def names(self, prefix: str, now_epoch_s: float) -> list[str]:  # noqa: ARG002 - protocol
        """Return the groups whose names begin so."""
        literal = "".join(
            f"\\{sign}" if sign in SPECIAL else sign for sign in f"{self._group}{prefix}"
        )
        with redis_errors(self._place):
            keys = {bytes(key) for key in self._client.scan_iter(f"{literal}*", SCAN_COUNT)}
        return sorted(key.decode().removeprefix(self._group) for key in keys)

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def why_unsafe(self) -> str | None:
        """Return what of the server's settings lets it lose what it was told; None where nothing.

        A server that does not tell its settings is believed.
        """
        import redis  # noqa: PLC0415 - an extra

        try:
            told = self._client.config_get("append*")
        except redis.ResponseError:
            return None
        if told.get("appendonly") != "yes":
            return "it keeps nothing on disk at once: set 'appendonly yes'"
        if told.get("appendfsync") != "always":
            return "it may lose its last second: set 'appendfsync always'"
        return None


@contextmanager
def redis_errors(place: str) -> Iterator[None]:
    """Turn errors of the Redis client's into ones that say what to do.

    Raises:
        JournalError: Instead of ``redis.RedisError``.
    """
    from agent_runtime.redis_access.errors import server_errors  # noqa: PLC0415 - an extra

    with server_errors(place):
        yield


def _flat(values: Mapping[str, bytes]) -> list[str | bytes]:
    return [part for pair in values.items() for part in pair]


@contextmanager
def open_redis_store(url: str) -> Iterator[RedisStore]:
    """Open a Redis.

    Args:
        url: As redis-py takes it, ``redis://``, ``rediss://`` or ``unix://``, and in its query
            ``prefix``, for gateways that do not share.

    Raises:
        ConfigError: A URL that is none; the client is not installed.
        JournalError: It can't be reached.
    """
    parsed = RedisUrl.of(url, ("prefix",))
    place, prefix = parsed.name, parsed.prefix(DEFAULT_PREFIX)
    try:
        import redis  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            f"journal {place}: redis is not installed: pip install 'panjiu[redis]'"
        ) from error
    try:
        client = redis.Redis.from_url(
            parsed.url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
    except ValueError as error:
        raise ConfigError(f"journal {place}: {error}; as in redis://HOST:6379/0") from error
    try:
        with redis_errors(place):
            client.ping()
        yield RedisStore(client, place, prefix)
    finally:
        client.close()
