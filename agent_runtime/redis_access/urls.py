"""URLs of Redis, with parameters of ours in their queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from agent_runtime.errors import ConfigError

SCHEMES = ("redis://", "rediss://", "unix://")
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


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A URL, taken apart.

    Attributes:
        url: What the client is told, which may have a password.
        name: What people are told, which has none.
        given: The parameters that are ours.
    """

    url: str
    name: str
    given: Mapping[str, str]

    @classmethod
    def of(cls, url: str, ours: Sequence[str]) -> Self:
        """Take a URL apart.

        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py takes it.
            ours: Parameters that it may have beside redis-py's.

        Raises:
            ConfigError: It has others.
        """
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(given.keys() - {*ours, *THEIRS})
        if unknown:
            raise ConfigError(
                f"{_name(url)}: {unknown[0]} is none of the parameters of a journal in Redis: "
                f"{', '.join((*ours, *THEIRS))}"
            )
        query = urlencode({name: value for name, value in given.items() if name in THEIRS})
        return cls(
            _joined(parts.scheme, parts.netloc, parts.path, query),
            _name(url),
            {name: value for name, value in given.items() if name in ours},
        )

    def prefix(self, default: str) -> str:
        """Return what keys begin with.

        Raises:
            ConfigError: They can't begin so.
        """
        return _prefix(self.given.get("prefix", default))


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
