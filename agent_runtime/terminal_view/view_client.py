"""Reading a server's rack view: one connection, and another one whenever it breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import anyio
import httpx2
import msgspec

from agent_runtime.errors import (
    MAX_SHOWN_BODY,
    BackendError,
    ConfigError,
    ViewLostError,
)
from agent_runtime.event_stream import EventStreamParser
from agent_runtime.terminal_view.connection import Connection
from agent_runtime.terminal_view.strokes import shown
from agent_runtime.undecodable import UNDECODABLE

CONNECT_S = 5.0
SILENCE_S = 15.0
"""Frames come twice a second; a server that is silent for so long is gone."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0
OK = 200
COUNTED_S = 0.5
"""How often somebody is told how long it is until the next try."""


@dataclass(frozen=True, slots=True)
class ViewServer:
    """Where a server is.

    Attributes:
        url: Without a path.
        key: Of its dashboard, or None.
    """

    url: str
    key: str | None = None

    @classmethod
    def at(cls, url: str, key: str | None = None) -> Self:
        """Return the server at a URL as people write it: ``:8000``, ``host:8000``, ``http://host/v1``.

        Raises:
            ConfigError: It is none.
        """
        parts = urlsplit(_with_scheme(url))
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"URL {url}: {error}") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"URL {url}: expected one such as http://127.0.0.1:8000")
        if parts.username is not None:
            raise ConfigError(
                "URL: no user or password there; the dashboard's key is in PANJIU_DASHBOARD_KEY"
            )
        if parts.query or parts.fragment:
            raise ConfigError(f"URL {url}: expected nothing behind the path")
        if key is not None and not (key.isascii() and key.isprintable() and key.strip()):
            raise ConfigError("the dashboard's key: expected printable ASCII characters")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        path = parts.path.rstrip("/").removesuffix("/v1")
        place = host if port is None else f"{host}:{port}"
        return cls(f"{parts.scheme}://{place}{path}", key)


class ViewClient:
    """A client of the server's view.

    Args:
        server: Which one.
        transport: For tests; by default the network.
    """

    def __init__(
        self, server: ViewServer, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.server = server
        self._transport = transport

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Connect; the messages that come until the server ends them.

        Raises:
            ViewLostError: On entry or while iterating; there is no server, or it left.
            ConfigError: It wants another key.
            BackendError: It has no view, or none that can be read.
        """
        server = self.server
        headers = {} if server.key is None else {"authorization": f"Bearer {server.key}"}
        timeout = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
        try:
            async with (
                httpx2.AsyncClient(timeout=timeout, transport=self._transport) as http,
                http.stream("GET", f"{server.url}/view/stream", headers=headers) as response,
            ):
                if response.status_code != OK:
                    raise _refusal(server, response.status_code, await response.aread())
                kind = response.headers.get("content-type", "")
                if not kind.startswith("text/event-stream"):
                    raise BackendError(
                        f"{server.url}/view/stream is no event stream but {kind or 'untyped'}: "
                        "is it a 'panjiu serve'?"
                    )
                yield _events(response)
        except httpx2.HTTPError as error:
            raise _lost(server, error) from error


async def follow(
    client: ViewClient,
    take: Callable[[bytes], None],
    told: Callable[[Connection], None],
    first_wait_s: float = FIRST_WAIT_S,
) -> None:
    """Read messages for ever; connect again, ever more rarely, whenever the connection breaks.

    Args:
        client: Of the server.
        take: Is given each message.
        told: Is told whenever the connection changes.
        first_wait_s: Before the first try after a loss; it doubles with each.

    Raises:
        ViewLostError: There was no first message.
        ConfigError: As of ``opened``.
        BackendError: As of ``opened``.
    """
    connected, wait_s = False, first_wait_s
    while True:
        live = False
        try:
            async with client.opened() as messages:
                async for data in messages:
                    take(data)
                    if not live:
                        live = connected = True
                        wait_s = first_wait_s
                        told(Connection())
            raise ViewLostError(f"{client.server.url} ended the stream")  # noqa: TRY301 - as if lost
        except ViewLostError as error:
            if not connected:
                raise
            problem = str(error)
        left_s = wait_s
        while left_s > 0:
            told(Connection(problem, left_s))
            await anyio.sleep(min(COUNTED_S, left_s))
            left_s -= COUNTED_S
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _with_scheme(url: str) -> str:
    if url.startswith(":"):
        return f"http://127.0.0.1{url}"
    return url if "://" in url else f"http://{url}"


async def _events(response: httpx2.Response) -> AsyncIterator[bytes]:
    parser = EventStreamParser()
    async for chunk in response.aiter_bytes():
        for data in parser.feed(chunk):
            yield data


def _lost(server: ViewServer, error: httpx2.HTTPError) -> ViewLostError:
    if isinstance(error, httpx2.ReadTimeout):
        return ViewLostError(f"{server.url} said nothing for {SILENCE_S:g} s")
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return ViewLostError(
            f"no server at {server.url} ({_reason(error)}); start one with "
            "'panjiu serve', or name another: panjiu top URL"
        )
    return ViewLostError(f"the connection to {server.url} broke: {_reason(error)}")


def _reason(error: httpx2.HTTPError) -> str:
    return str(error) or type(error).__name__


def _refusal(server: ViewServer, status: int, body: bytes) -> Exception:
    said = shown(_message(body))
    match status:
        case 403:
            return ConfigError(f"{server.url} does not show its dashboard: {said}")
        case 401:
            wanted = "another key" if server.key is not None else "a key"
            return ConfigError(
                f"{server.url} wants {wanted} for its dashboard: set PANJIU_DASHBOARD_KEY, or pass "
                f"--key; it says: {said}"
            )
        case 404:
            return BackendError(
                f"{server.url} has no dashboard: it was started with --no-dashboard, or is no "
                "'panjiu serve' that has one"
            )
        case 503:
            return ViewLostError(f"{server.url} takes no viewer now: {said}")
        case _:
            return BackendError(f"{server.url}/view/stream answered {status}: {said}")


class _Error(msgspec.Struct):
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


def _message(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.message
    except UNDECODABLE:
        return body[:MAX_SHOWN_BODY].decode("utf-8", "replace")
