"""What a request to an engine begins with: where it goes, and the bytes before its body."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

_TARGET = re.compile(r"/[!-~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BREAKS = re.compile(r"[\r\n\0]")
HTTPS, AUTHORIZATION = "https", "authorization"
DEFAULT_PORTS = {"http": 80, HTTPS: 443}
WITHOUT_BODY = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Origin:
    """A server.

    Attributes:
        host, port: To connect to.
        is_tls: Whether TLS is spoken.
        head: Lines that every request to it has.
        authorization: What its URL says of who we are, or nothing.
    """

    host: str
    port: int
    is_tls: bool
    head: str
    authorization: str

    @classmethod
    def of(cls, address: str) -> Origin:
        """Return that of an address as ``engine_url`` gives it, without a path.

        Raises:
            ValueError: It has no host.
        """
        parts = urlsplit(address)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"expected http://HOST:PORT, got {address!r}")
        default = DEFAULT_PORTS[parts.scheme]
        named = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = default if parts.port is None else parts.port
        head = header_line("host", named if port == default else f"{named}:{port}")
        head += header_line("accept", "*/*")
        authorization = ""
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + b64encode(user.encode()).decode()
        return cls(parts.hostname, port, parts.scheme == HTTPS, head, authorization)


def split_url(url: str) -> tuple[str, str]:
    """Return the address of a URL's server, and what is asked of it: path and query."""
    slash = url.find("/", url.find("://") + 3)
    if slash < 0:
        return url, "/"
    address, target = url[:slash], url[slash:].partition("#")[0]
    if _TARGET.fullmatch(target) is None:
        target = quote(target, safe="".join(map(chr, range(0x21, 0x7F))))
    return address, target


def request_head(
    method: str, target: str, origin: Origin, headers: Mapping[str, str], num_body_bytes: int
) -> bytes:
    """Return the bytes before a body.

    Args:
        method: HTTP's.
        target: As ``split_url`` gives it.
        origin: Whom it is sent to.
        headers: In lower case; beside those that say where the request goes and how long it is.
        num_body_bytes: How long the body is.

    Raises:
        ValueError: A header that would end the head or begin another one; names it.
    """
    head = f"{method} {target} HTTP/1.1\r\n{origin.head}"
    if origin.authorization and AUTHORIZATION not in headers:
        headers = {**headers, AUTHORIZATION: origin.authorization}
    for name, value in headers.items():
        head += f"{name}: {value}\r\n"
    num_lines = 1 + origin.head.count("\n") + len(headers)
    if num_body_bytes or method not in WITHOUT_BODY:
        head += f"content-length: {num_body_bytes}\r\n"
        num_lines += 1
    head += "\r\n"
    is_plain = (
        head.count("\n") == num_lines + 1
        and head.count("\r") == num_lines + 1
        and "\0" not in head
        and all(map(_NAME.fullmatch, headers))
    )
    if not is_plain:
        for name, value in headers.items():  # which one was it?
            header_line(name, value)
        raise ValueError(f"{method!r} is no method of HTTP")
    return head.encode("latin-1")


def header_line(name: str, value: str) -> str:
    """Return a header as it is sent.

    Raises:
        ValueError: It would end the head, or begin another header; names it.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name of a header")
    if _BREAKS.search(value) is not None:
        raise ValueError(f"header {name}: a value must not have line breaks, got {value!r}")
    return f"{name}: {value}\r\n"
