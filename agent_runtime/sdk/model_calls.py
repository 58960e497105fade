"""Model calls with patience: tried again before their first byte, errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from agent_runtime.chat_client import ChatClient
from agent_runtime.errors import BackendError, ModelCallError, UpstreamRefusedError

TRY_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call is tried.

    Attributes:
        num_tries: In all, >= 1.
        first_wait_s: Before the second; it doubles, unless the server says how long.
        longest_wait_s: At most.
    """

    num_tries: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def wait_s(self, num_tried: int, asked_s: float | None) -> float:
        """Return how long to wait after so many tries."""
        wait_s = self.first_wait_s * 2 ** (num_tried - 1) if asked_s is None else asked_s
        return min(wait_s, self.longest_wait_s)


class ModelCalls:
    """Calls of one server.

    Args:
        client: Entered.
        patience: With it.
    """

    def __init__(self, client: ChatClient, patience: Patience) -> None:
        self.client = client
        self._patience = patience

    async def whole(self, request: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """Return an answer in one piece.

        Raises:
            ModelCallError: The server refused, or failed every time.
        """
        num_tried = 0
        while True:
            try:
                return await self.client.whole(request, headers)
            except BackendError as error:
                num_tried += 1
                await self._wait_or_raise(error, num_tried)

    @asynccontextmanager
    async def stream(
        self, request: dict[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Open a streamed answer.

        Raises:
            ModelCallError: As of ``whole``; or, while iterating, the stream broke or said so.
        """
        async with AsyncExitStack() as stack:
            yield _checked(await self._opened(stack, request, headers))

    async def _opened(
        self, stack: AsyncExitStack, request: dict[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[dict[str, Any]]:
        num_tried = 0
        while True:
            try:
                return await stack.enter_async_context(self.client.stream(request, headers))
            except BackendError as error:
                num_tried += 1
                await self._wait_or_raise(error, num_tried)

    async def _wait_or_raise(self, error: BackendError, num_tried: int) -> None:
        refused = error if isinstance(error, UpstreamRefusedError) else None
        final = refused is not None and refused.status not in TRY_AGAIN
        if final or num_tried >= self._patience.num_tries:
            raise _model_call_error(error, num_tried) from error
        asked_s = None if refused is None else refused.retry_after_s
        await anyio.sleep(self._patience.wait_s(num_tried, asked_s))


async def _checked(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    try:
        async for chunk in chunks:
            if chunk.get("error"):
                raise ModelCallError(f"the stream ended with an error: {_message(chunk)}")
            yield chunk
    except BackendError as error:
        raise _model_call_error(error, 1) from error


def _model_call_error(error: BackendError, num_tried: int) -> ModelCallError:
    times = f" (tried {num_tried} times)" if num_tried > 1 else ""
    if not isinstance(error, UpstreamRefusedError):
        return ModelCallError(f"{error}{times}")
    try:
        body = json.loads(error.body)
    except ValueError:
        return ModelCallError(f"{error}{times}", status=error.status)
    message = f"the server answered {error.status}: {_message(body)}{times}"
    return ModelCallError(message, status=error.status)


def _message(body: object) -> str:
    told = body.get("error") if isinstance(body, dict) else None
    return str(told.get("message", told)) if isinstance(told, dict) else str(told or body)
