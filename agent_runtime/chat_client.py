"""A client of any OpenAI-compatible server's chat completions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from agent_runtime.errors import BackendError, UpstreamRefusedError
from agent_runtime.event_stream import EventStreamParser

CONNECT_S = 5.0
DONE = b"[DONE]"
JSON = MappingProxyType({"content-type": "application/json"})
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ChatServer:
    """Where a server is and how it wants to be asked.

    Attributes:
        base_url: As an OpenAI client takes it, ``/v1`` included.
        model: The model to ask for, or None for the one that the caller names.
        api_key: Sent as a bearer token, or None.
        timeout_s: The longest wait for the next byte of an answer; None waits for ever.
    """

    base_url: str
    model: str | None = None
    api_key: str | None = None
    timeout_s: float | None = None


class ChatClient:
    """A client of the server; enter it before use.

    Args:
        server: Which one.
        transport: For tests; by default the network.
    """

    def __init__(
        self, server: ChatServer, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.server = server
        # Made once: httpx2 parses what it is given as text, and its join with the base, every time.
        self._chat_url = httpx2.URL(f"{server.base_url.rstrip('/')}/chat/completions")
        headers = {} if server.api_key is None else {"authorization": f"Bearer {server.api_key}"}
        self._http = httpx2.AsyncClient(
            base_url=server.base_url,
            headers=headers,
            timeout=httpx2.Timeout(server.timeout_s, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=None),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc_value, traceback)

    @asynccontextmanager
    async def post(
        self, body: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncIterator[ChatAnswer]:
        """Send a request that is encoded already; the answer has begun on entry.

        Raises:
            UpstreamRefusedError: The server answered with an error, which is the caller's to see.
            BackendError: The server can't be reached.
        """
        try:
            async with self._http.stream(
                "POST", self._chat_url, content=body, headers={**JSON, **headers}
            ) as response:
                if response.is_error:
                    raise _refusal(response, await response.aread())
                yield ChatAnswer(response, self._failure)
        except httpx2.HTTPError as error:
            raise self._failure(error) from error

    async def whole(
        self, request: dict[str, Any], headers: Mapping[str, str] = NO_HEADERS
    ) -> dict[str, Any]:
        """Return the answer to a request in one piece.

        Raises:
            UpstreamRefusedError: As of ``post``.
            BackendError: The server can't be reached, or its answer can't be read.
        """
        async with self.post(self._encoded({**request, "stream": False}), headers) as answer:
            return await answer.whole()

    @asynccontextmanager
    async def stream(
        self, request: dict[str, Any], headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Open a streamed answer; where the server can, each chunk tells its usage so far.

        Raises:
            UpstreamRefusedError: On entry; the server answered with an error.
            BackendError: On entry or while iterating; the server is gone, or can't be understood.
        """
        asked = request.get("stream_options") or {}
        options = {**asked, "include_usage": True, "continuous_usage_stats": True}
        body = self._encoded({**request, "stream": True, "stream_options": options})
        async with self.post(body, headers) as answer:
            yield answer.chunks()

    async def models(self) -> list[str]:
        """Return the names of the models that the server has.

        Raises:
            UpstreamRefusedError, BackendError: As of ``whole``.
        """
        return [card["id"] for card in await self.model_cards()]

    async def model_cards(self) -> list[dict[str, Any]]:
        """Return what the server says of its models.

        Raises:
            UpstreamRefusedError, BackendError: As of ``whole``.
        """
        response = await self._got("models")
        if response.is_error:
            raise _refusal(response, response.content)
        cards = _parsed(response.content).get("data")
        return cards if isinstance(cards, list) else []

    async def page(self, path: str) -> str | None:
        """Return a page of the server outside the API, e.g. ``/metrics``; None if there is none.

        Raises:
            BackendError: The server can't be reached.
        """
        response = await self._got(str(httpx2.URL(self.server.base_url).join(path)))
        return response.text if response.is_success else None

    async def _got(self, url: str) -> httpx2.Response:
        try:
            return await self._http.get(url)
        except httpx2.HTTPError as error:
            raise self._failure(error) from error

    async def close_session(self, session_id: str) -> None:
        """Tell the server that a session is over; one that knows no sessions may ignore it.

        Raises:
            BackendError: The server can't be reached.
        """
        await self._told("DELETE", _session_path(session_id))

    async def fork_session(self, session_id: str, fork_id: str) -> None:
        """Tell the server that a session begins as another one; it may ignore it.

        Raises:
            BackendError: The server can't be reached.
        """
        await self._told("POST", f"{_session_path(session_id)}/fork", {"id": fork_id})

    async def hint_session(self, session_id: str, hint: Mapping[str, float]) -> None:
        """Tell the server what is known of the tools that run; it may ignore it.

        Args:
            session_id: Whose.
            hint: ``expected_tool_s`` or ``progress``.

        Raises:
            BackendError: The server can't be reached.
        """
        await self._told("POST", f"{_session_path(session_id)}/hint", hint)

    async def _told(
        self, method: str, path: str, content: Mapping[str, str | float] | None = None
    ) -> None:
        try:
            await self._http.request(method, path, json=content)
        except httpx2.HTTPError as error:
            raise self._failure(error) from error

    def _encoded(self, request: dict[str, Any]) -> bytes:
        if self.server.model is not None:
            request = {**request, "model": self.server.model}
        return encoded_json(request)

    def _failure(self, error: httpx2.HTTPError) -> BackendError:
        return BackendError(f"the server {self.server.base_url} failed: {error!r}")


class ChatAnswer:
    """An answer that has begun; it is read whole or as chunks, once.

    Attributes:
        headers: Of the answer; names are found in either case.
    """

    def __init__(
        self, response: httpx2.Response, failure: Callable[[httpx2.HTTPError], BackendError]
    ) -> None:
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._failure = failure

    async def whole(self) -> dict[str, Any]:
        """Return it in one piece.

        Raises:
            BackendError: It broke off, or is not a JSON object.
        """
        try:
            return _parsed(await self._response.aread())
        except httpx2.HTTPError as error:
            raise self._failure(error) from error

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks of a stream.

        Raises:
            BackendError: It broke off, or one is not a JSON object.
        """
        parser = EventStreamParser()
        try:
            async for chunk in self._response.aiter_bytes():
                for data in parser.feed(chunk):
                    if data.strip() == DONE:
                        return
                    yield _parsed(data)
        except httpx2.HTTPError as error:
            raise self._failure(error) from error


def encoded_json(value: object) -> bytes:
    """Encode what goes on the wire; half a surrogate pair, which UTF-8 can't carry, as an escape.

    Raises:
        TypeError: Not JSON.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def _session_path(session_id: str) -> str:
    return f"sessions/{quote(session_id, safe='')}"


def _refusal(response: httpx2.Response, body: bytes) -> UpstreamRefusedError:
    wait = response.headers.get("retry-after", "")
    retry_after_s = float(wait) if wait.isdecimal() else None
    return UpstreamRefusedError(response.status_code, body, retry_after_s)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BackendError(f"the server sent what is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BackendError("the server sent JSON that is no object")
    return value
