"""Where a journal in Redis is: what its URL says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from agent_runtime.errors import ConfigError

DEFAULT_PREFIX = "panjiu"
DEFAULT_LEASE_S = 10.0
MIN_LEASE_S, MAX_LEASE_S = 1.0, 3600.0
OURS = ("prefix", "durability", "lease_s")
THEIRS = (
    "client_name",
    "db",
    "health_check_interval",
    "password",
    "protocol",
    "socket_connect_timeout",
    "socket_timeout",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
    "username",
)
"""What redis-py takes of a URL's query."""


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
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(given.keys() - {*OURS, *THEIRS})
        if unknown:
            raise ConfigError(
                f"{_name(url)}: {unknown[0]} is none of the parameters of a journal in Redis: "
                f"{', '.join((*OURS, *THEIRS))}"
            )
        query = urlencode({name: value for name, value in given.items() if name in THEIRS})
        return cls(
            _joined(parts.scheme, parts.netloc, parts.path, query),
            _name(url),
            _prefix(given.get("prefix", DEFAULT_PREFIX)),
            _durability(given.get("durability", Durability.DISK.value)),
            _lease_s(given.get("lease_s", str(DEFAULT_LEASE_S))),
        )


def _name(url: str) -> str:
    """Return a URL without user and password, and without what is not about the place."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name in ("db", "prefix")]
    return _joined(parts.scheme, host, parts.path, urlencode(kept))


def _joined(scheme: str, place: str, path: str, query: str) -> str:
    # urlunsplit leaves out the slashes where there is no host.
    return f"{scheme}://{place}{path}{'?' if query else ''}{query}"


def _prefix(text: str) -> str:
    if not text or not text.isprintable() or set(text) & set("{} "):
        raise ConfigError(
            f"prefix: {text!r} can't begin the names of keys; take printable characters, no braces "
            "and no spaces, e.g. prefix=fleet"
        )
    return text


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
