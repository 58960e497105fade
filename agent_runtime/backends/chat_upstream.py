"""Another OpenAI-compatible server whose chat completions are asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx2

from agent_runtime.errors import BackendError, UpstreamRefusedError
from agent_runtime.event_stream import EventStreamParser

CONNECT_S = 5.0
DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """Where it is and how it wants to be asked.

    Attributes:
        base_url: As an OpenAI client takes it, ``/v1`` included.
        model: The model to ask for, or None for the one that the caller names.
        api_key: Sent as a bearer token, or None.
    """

    base_url: str
    model: str | None = None
    api_key: str | None = None


@dataclass(slots=True)
class Lateness:
    """How often, and by how much, the real model was behind the rack.

    Attributes:
        num_turns: Turns that ended.
        num_late: Turns with a chunk that came when the rack had released it long ago.
        worst_s: The longest such delay.
    """

    num_turns: int = 0
    num_late: int = 0
    worst_s: float = 0.0

    def count(self, late_s: float, tolerance_s: float = 0.05) -> None:
        """Count a turn whose latest chunk was so late."""
        self.num_turns += 1
        self.num_late += late_s > tolerance_s
        self.worst_s = max(self.worst_s, late_s)


class ChatUpstream:
    """A client of the server; enter it before use.

    Args:
        options: Which server.
        transport: For tests; by default the network.

    Attributes:
        lateness: Of its answers so far, told by whoever paces them.
    """

    def __init__(
        self, options: UpstreamOptions, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.lateness = Lateness()
        self._options = options
        headers = {} if options.api_key is None else {"authorization": f"Bearer {options.api_key}"}
        self._http = httpx2.AsyncClient(
            base_url=options.base_url,
            headers=headers,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
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

    async def whole(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request in one piece.

        Raises:
            UpstreamRefusedError: The server answered with an error, which is the caller's to see.
            BackendError: The server can't be reached, or its answer can't be read.
        """
        async with self._answered({**request, "stream": False}) as response:
            body = await response.aread()
        return _parsed(body)

    @asynccontextmanager
    async def stream(self, request: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Open a streamed answer; where the server can, each chunk tells its usage so far.

        Raises:
            UpstreamRefusedError: On entry; the server answered with an error.
            BackendError: On entry or while iterating; the server is gone, or can't be understood.
        """
        asked = request.get("stream_options") or {}
        options = {**asked, "include_usage": True, "continuous_usage_stats": True}
        async with self._answered(
            {**request, "stream": True, "stream_options": options}
        ) as response:
            yield self._chunks(response)

    @asynccontextmanager
    async def _answered(self, request: dict[str, Any]) -> AsyncIterator[httpx2.Response]:
        if self._options.model is not None:
            request = {**request, "model": self._options.model}
        try:
            async with self._http.stream("POST", "chat/completions", json=request) as response:
                if response.is_error:
                    raise UpstreamRefusedError(response.status_code, await response.aread())
                yield response
        except httpx2.HTTPError as error:
            raise self._failure(error) from error

    async def _chunks(self, response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
        parser = EventStreamParser()
        try:
            async for chunk in response.aiter_bytes():
                for data in parser.feed(chunk):
                    if data.strip() == DONE:
                        return
                    yield _parsed(data)
        except httpx2.HTTPError as error:
            raise self._failure(error) from error

    def _failure(self, error: httpx2.HTTPError) -> BackendError:
        return BackendError(
            f"the server behind this one, {self._options.base_url}, failed: {error!r}"
        )


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise BackendError(f"the server behind this one sent what is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BackendError("the server behind this one sent JSON that is no object")
    return value
