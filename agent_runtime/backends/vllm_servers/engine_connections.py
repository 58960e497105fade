"""HTTP to engines over the network: connections that are kept for the next request.

A client of its own, as it is asked for little and pays for every turn and chunk: docs/engines.md
has what it costs beside others. It follows no redirects, keeps no cookies, decompresses nothing.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - connections are its protocols, see ``EngineConnection``
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from agent_runtime.backends.vllm_servers.engine_connection import (
    ConnectionBrokeError,
    EngineConnection,
)
from agent_runtime.backends.vllm_servers.engine_http import (
    PROBE_S,
    EngineReply,
    EngineUnreachableError,
    missing_extra,
)
from agent_runtime.backends.vllm_servers.engine_request import Origin, request_head, split_url

if TYPE_CHECKING:
    import httptools

CONNECT_S = 5.0
KEEP_ALIVE_S = 4.0
"""Less than the 5 s after which vLLM closes idle connections, or turns would meet closed ones."""

MAX_PAGE_BYTES = 32 << 20
FIRST_REDIRECT, LAST_REDIRECT = 300, 399

MakeParser = Callable[[EngineConnection], "httptools.HttpResponseParser"]


class _Kept:
    """The connections to one server that nobody uses.

    Invariant: those used last stand at the end.
    """

    __slots__ = ("address", "idle", "origin")

    def __init__(self, address: str) -> None:
        self.address = address
        self.origin = Origin.of(address)
        self.idle: list[EngineConnection] = []


class EngineConnections:
    """``EngineHttp`` over the network.

    Args:
        make_parser: Of answers.
        headers: That every request has.

    Attributes:
        num_opened: Connections so far.

    Invariant: every connection that is not closed yet is in ``_open``, and those of them that
        nobody uses in one of ``_kept``.
    """

    def __init__(self, make_parser: MakeParser, headers: Mapping[str, str]) -> None:
        self.num_opened = 0
        self._make_parser = make_parser
        self._headers = dict(headers)
        self._kept: dict[str, _Kept] = {}
        self._open: set[EngineConnection] = set()
        self._sweep_at: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    async def get(self, url: str) -> tuple[int, bytes]:
        """Return status and body.

        Raises:
            EngineUnreachableError: No answer in time, a redirect, or more than ``MAX_PAGE_BYTES``.
        """
        with anyio.move_on_after(PROBE_S):
            reply = await self._asked("GET", url, b"", self._headers)
            try:
                body = bytearray()
                while data := await reply.next_bytes():
                    body += data
                    if len(body) > MAX_PAGE_BYTES:
                        problem = f"{url}: an answer of more than {MAX_PAGE_BYTES} bytes"
                        raise EngineUnreachableError(problem, refused=False)
            finally:
                reply.close()
            return reply.status, bytes(body)
        raise EngineUnreachableError(f"{url}: no answer within {PROBE_S:g} s", refused=False)

    async def send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> EngineReply:
        """Send a request; return once the answer has begun.

        Raises:
            EngineUnreachableError: No answer, or a redirect.
            ValueError: A header that can't be one; names it.
        """
        named = {"content-type": "application/json", **self._headers, **headers}
        return await self._asked(method, url, body, named)

    def close(self) -> None:
        """Close all connections, those in use too."""
        if self._sweep_at is not None:
            self._sweep_at.cancel()
        for connection in list(self._open):
            connection.abort()

    async def _asked(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> _Reply:
        address, target = split_url(url)
        kept = self._kept.get(address)
        if kept is None:
            kept = self._kept[address] = _Kept(address)
        head = request_head(method, target, kept.origin, headers, len(body))
        while True:
            connection = self._idle(kept)
            is_fresh = connection is None
            if connection is None:
                connection = await self._connected(kept.origin, url)
            try:
                await connection.ask(head, body)
            except ConnectionBrokeError as error:
                # An idle one was closed just as it was used: what was sent, nobody read.
                if is_fresh or error.began:
                    raise EngineUnreachableError(f"{url}: {error}", refused=False) from error
                continue
            except BaseException:
                connection.abort()
                raise
            reply = _Reply(connection, kept, self._give_back)
            if FIRST_REDIRECT <= reply.status <= LAST_REDIRECT:
                reply.close()
                raise _redirects(url, reply)
            return reply

    def _idle(self, kept: _Kept) -> EngineConnection | None:
        """Return a connection that is kept, if there is one that the engine has not closed."""
        since_s = asyncio.get_running_loop().time() - KEEP_ALIVE_S
        while kept.idle:
            connection = kept.idle.pop()
            if connection.is_reusable and connection.idle_since_s > since_s:
                return connection
            connection.abort()
        return None

    async def _connected(self, origin: Origin, url: str) -> EngineConnection:
        tls = self._context() if origin.is_tls else None
        name = origin.host if origin.is_tls else None
        try:
            with anyio.fail_after(CONNECT_S):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: EngineConnection(self._make_parser, self._open.discard),
                    origin.host,
                    origin.port,
                    ssl=tls,
                    server_hostname=name,
                )
        except TimeoutError as error:
            problem = f"{url}: no connection within {CONNECT_S:g} s"
            raise EngineUnreachableError(problem, refused=False) from error
        except (OSError, UnicodeError) as error:  # the latter of names that can't be looked up
            problem = f"{url}: no connection: {str(error) or repr(error)}"
            raise EngineUnreachableError(problem, refused=True) from error
        self.num_opened += 1
        self._open.add(connection)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _give_back(self, connection: EngineConnection, kept: _Kept) -> None:
        """Keep a connection for the next request, if there can be one."""
        if not connection.is_reusable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.prepare_to_idle()
        connection.idle_since_s = loop.time()
        self._kept.setdefault(kept.address, kept).idle.append(connection)  # it may be forgotten
        if self._sweep_at is None:
            self._sweep_at = loop.call_later(KEEP_ALIVE_S, self._sweep)

    def _sweep(self) -> None:
        """Close connections that have been idle for long, and forget servers without any."""
        loop = asyncio.get_running_loop()
        since_s = loop.time() - KEEP_ALIVE_S
        for address, kept in list(self._kept.items()):
            num_old = sum(one.idle_since_s <= since_s for one in kept.idle)
            for connection in kept.idle[:num_old]:
                connection.abort()
            del kept.idle[:num_old]
            if not kept.idle:
                del self._kept[address]
        self._sweep_at = loop.call_later(KEEP_ALIVE_S, self._sweep) if self._kept else None


class _Reply:
    """An ``EngineReply``.

    Invariant: ``_connection`` is there until the reply is closed or has come to its end.
    """

    __slots__ = ("_connection", "_give_back", "_headers", "_kept", "_problem", "status")

    def __init__(
        self,
        connection: EngineConnection,
        kept: _Kept,
        give_back: Callable[[EngineConnection, _Kept], None],
    ) -> None:
        self.status, self._headers = connection.status, connection.headers
        self._connection: EngineConnection | None = connection
        self._kept, self._give_back = kept, give_back
        self._problem = ""

    @property
    def retry_after(self) -> str:
        return self._headers.get(b"retry-after", b"").decode("latin-1")

    @property
    def content_type(self) -> str:
        return self._headers.get(b"content-type", b"application/json").decode("latin-1")

    @property
    def location(self) -> str:
        return self._headers.get(b"location", b"").decode("latin-1")

    async def next_bytes(self) -> bytes:
        connection = self._connection
        if connection is None:
            if self._problem:
                raise EngineUnreachableError(self._problem, refused=False)
            return b""
        try:
            data = await connection.next_bytes()
        except ConnectionBrokeError as error:
            problem = f"the reply broke off: {error}"
            raise EngineUnreachableError(problem, refused=False) from error
        if not data:
            self.close()
        return data

    @property
    def is_at_end(self) -> bool:
        return self._connection is None or self._connection.is_complete

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not connection.is_complete:
            self._problem = "the reply was closed"
            connection.abort(self._problem)
        self._give_back(connection, self._kept)


def _redirects(url: str, reply: _Reply) -> EngineUnreachableError:
    problem = f"{url}: it answered {reply.status}, a redirect to {reply.location or 'nowhere'}"
    return EngineUnreachableError(f"{problem}; name the engine by that address", refused=False)


@asynccontextmanager
async def open_engine_http(api_key: str | None = None) -> AsyncIterator[EngineConnections]:
    """Have connections to engines until the context is left.

    Args:
        api_key: Sent to all of them, or None.

    Raises:
        ConfigError: httptools is not installed.
    """
    try:
        import httptools  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing_extra("httptools") from error
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    connections = EngineConnections(httptools.HttpResponseParser, headers)
    try:
        yield connections
    finally:
        connections.close()
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()  # in which the sockets are closed
