"""HTTP to engines, by aiohttp: it moves the most streamed chunks a second (docs/engines.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from agent_runtime.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp

CONNECT_S = 5.0
PROBE_S = 5.0
KEEP_ALIVE_S = 4.0
"""Less than the 5 s after which vLLM closes idle connections, or turns would meet closed ones."""
MAX_BUFFERED_BYTES = 64 << 10


class EngineUnreachableError(Exception):
    """No answer, or one that broke off.

    Attributes:
        refused: Whether nobody listens there: the engine is gone beyond doubt.
    """

    def __init__(self, problem: str, *, refused: bool) -> None:
        self.refused = refused
        super().__init__(problem)


class EngineReply(Protocol):
    """An answer under way; its body is read from the socket only as it is asked for."""

    @property
    def status(self) -> int:
        """HTTP's."""
        ...

    @property
    def retry_after(self) -> str:
        """The header, or nothing."""
        ...

    @property
    def content_type(self) -> str:
        """The header."""
        ...

    async def next_bytes(self) -> bytes:
        """Return what has come since, at least a byte; nothing at the end.

        Raises:
            EngineUnreachableError: It broke off.
        """
        ...

    @property
    def is_at_end(self) -> bool:
        """Whether all has come."""
        ...

    def close(self) -> None:
        """Close the connection: vLLM aborts what it still runs for it. Harmless at the end."""
        ...


class EngineHttp(Protocol):
    """How engines are reached; a fake stands here in tests."""

    async def get(self, url: str) -> tuple[int, bytes]:
        """Return status and body, within ``PROBE_S``.

        Raises:
            EngineUnreachableError: No answer.
        """
        ...

    async def send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> EngineReply:
        """Send a request; return once the answer has begun.

        Raises:
            EngineUnreachableError: No answer.
        """
        ...


class _AiohttpReply:
    __slots__ = ("_at_end", "_response")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._at_end = False

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def retry_after(self) -> str:
        return self._response.headers.get("retry-after", "")

    @property
    def content_type(self) -> str:
        return self._response.headers.get("content-type", "application/json")

    async def next_bytes(self) -> bytes:
        import aiohttp  # noqa: PLC0415 - an extra

        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            problem = f"the reply broke off: {str(error) or repr(error)}"
            raise EngineUnreachableError(problem, refused=False) from error
        if not data:
            self._at_end = True
            self._response.release()
        return data

    @property
    def is_at_end(self) -> bool:
        return self._at_end or self._response.content.is_eof()

    def close(self) -> None:
        if self.is_at_end:
            self._response.release()
        else:
            self._response.close()


class AiohttpEngines:
    """``EngineHttp`` over the network; a connection a turn, kept alive from one to the next."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, url: str) -> tuple[int, bytes]:
        """Return status and body."""
        import aiohttp  # noqa: PLC0415 - an extra

        try:
            timeout = aiohttp.ClientTimeout(total=PROBE_S)
            async with self._session.get(url, timeout=timeout) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(url, error) from error

    async def send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> EngineReply:
        """Send a request; return once the answer has begun."""
        import aiohttp  # noqa: PLC0415 - an extra

        try:
            response = await self._session.request(
                method, url, data=body, headers={"content-type": "application/json", **headers}
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(url, error) from error
        return _AiohttpReply(response)


def _unreachable(url: str, error: Exception) -> EngineUnreachableError:
    import aiohttp  # noqa: PLC0415 - an extra

    refused = isinstance(error, aiohttp.ClientConnectorError)
    return EngineUnreachableError(f"{url}: {str(error) or repr(error)}", refused=refused)


@asynccontextmanager
async def open_engine_http(api_key: str | None = None) -> AsyncIterator[AiohttpEngines]:
    """Open connections to engines.

    Args:
        api_key: Sent to all of them, or None.

    Raises:
        ConfigError: aiohttp is not installed.
    """
    try:
        import aiohttp  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing_extra("aiohttp") from error
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        auto_decompress=False,
        read_bufsize=MAX_BUFFERED_BYTES,
        skip_auto_headers=("user-agent", "accept-encoding"),
    ) as session:
        yield AiohttpEngines(session)


def missing_extra(package: str) -> ConfigError:
    """Return the error for a package that real engines need and that is not installed."""
    return ConfigError(
        f"real engines need {package}, which is not installed: pip install 'panjiu[engines]'"
    )
