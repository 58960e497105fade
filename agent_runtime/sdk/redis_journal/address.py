"""Where a journal in Redis is: what its URL says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Self

from agent_runtime.errors import ConfigError
from agent_runtime.redis_access.urls import RedisUrl

DEFAULT_PREFIX = "panjiu"
DEFAULT_LEASE_S = 10.0
MIN_LEASE_S, MAX_LEASE_S = 1.0, 3600.0
OURS = ("prefix", "durability", "lease_s")


class Durability(Enum):
    """When something counts as safe."""

    DISK = "disk"  # once Redis has it on its disk
    SERVER = "server"  # once Redis has it, however Redis is set


@dataclass(frozen=True, slots=True)
class Address:
    """A journal's URL, taken apart.

    Attributes:
        url: What the client is told, which may have a password.
        name: What people are told, which has none.
        prefix: Of all keys.
        durability: When something counts as safe.
        lease_s: How long a program that is not heard of keeps its sessions.
    """

    url: str
    name: str
    prefix: str = DEFAULT_PREFIX
    durability: Durability = Durability.DISK
    lease_s: float = DEFAULT_LEASE_S

    @property
    def base(self) -> str:
        """What all keys begin with: in braces, so that a cluster keeps them on one of its nodes."""
        return f"{{{self.prefix}}}"

    @classmethod
    def of(cls, url: str) -> Self:
        """Take a URL apart.

        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py takes it, and in its
                query ``prefix``, ``durability`` and ``lease_s``.

        Raises:
            ConfigError: It is none; names the part of it that is wrong.
        """
        parsed = RedisUrl.of(url, OURS)
        given = parsed.given
        return cls(
            parsed.url,
            parsed.name,
            parsed.prefix(DEFAULT_PREFIX),
            _durability(given.get("durability", Durability.DISK.value)),
            _lease_s(given.get("lease_s", str(DEFAULT_LEASE_S))),
        )


def _durability(text: str) -> Durability:
    try:
        return Durability(text)
    except ValueError:
        raise ConfigError(
            f"durability: {text!r} is none; 'disk' waits until Redis has things on its disk, "
            "'server' takes Redis as it is set"
        ) from None


def _lease_s(text: str) -> float:
    try:
        lease_s = float(text)
    except ValueError:
        lease_s = 0.0
    if not MIN_LEASE_S <= lease_s <= MAX_LEASE_S:
        raise ConfigError(
            f"lease_s: {text!r} is no number from {MIN_LEASE_S:g} to {MAX_LEASE_S:g}: how many "
            "seconds a program that is not heard of keeps its sessions"
        )
    return lease_s
