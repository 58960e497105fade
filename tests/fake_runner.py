"""A turn runner at the gateway's seam, for what needs no rack, and the app over it in process."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
from starlette.applications import Starlette

from agent_runtime.gateway.app import EndpointLimits, create_app
from agent_runtime.turns import PlacementReason, TurnPlacement, TurnProgress, TurnRequest
from scheduler.events import GapHint
from scheduler.ids import ReplicaId, SessionId
from scheduler.session_view import SessionView
from tests.served_rack import MODEL

HELLO: list[Any] = [{"role": "user", "content": "Read the file and say what it does."}]


class FakeTurn:
    """A turn's progress, whatever its length."""

    placement = TurnPlacement(ReplicaId(0), 0.0, 0, PlacementReason.NEW)

    def __init__(self, steps: AsyncGenerator[TurnProgress, None]) -> None:
        self._steps = steps

    def __aiter__(self) -> FakeTurn:
        return self

    async def __anext__(self) -> TurnProgress:
        return await anext(self._steps)

    def end_output(self, num_tokens: int) -> None:
        raise NotImplementedError("lengths are known here")


class FakeRunner:
    """Gives a few tokens a checkpoint, or fails as told; records what it was asked.

    Args:
        refusal: Raised when a turn is opened.
        failure: Raised after the first tokens.
        max_context_tokens: As of a runtime.
    """

    block_size_tokens = 16

    def __init__(
        self,
        *,
        refusal: Exception | None = None,
        failure: Exception | None = None,
        max_context_tokens: int = 100_000,
    ) -> None:
        self.max_context_tokens = max_context_tokens
        self.refusal, self.failure = refusal, failure
        self.requests: list[TurnRequest] = []
        self.closed: list[SessionId] = []
        self.views: dict[SessionId, SessionView] = {}
        self.hinted: list[tuple[SessionId, GapHint]] = []
        self.num_open = 0

    @asynccontextmanager
    async def open_turn(self, request: TurnRequest) -> AsyncIterator[FakeTurn]:
        if self.refusal is not None:
            raise self.refusal
        self.requests.append(request)
        self.num_open += 1
        try:
            async with aclosing(self._progress(request)) as steps:
                yield FakeTurn(steps)
        finally:
            self.num_open -= 1

    def close_session(self, session_id: SessionId) -> None:
        self.closed.append(session_id)

    def now_s(self) -> float:
        return anyio.current_time()

    def hint_gap(self, session_id: SessionId, gap: GapHint) -> None:
        self.hinted.append((session_id, gap))

    def session_view(self, session_id: SessionId) -> SessionView | None:
        return self.views.get(session_id)

    async def _progress(self, request: TurnRequest) -> AsyncGenerator[TurnProgress, None]:
        left = request.num_output_tokens
        while left:
            await anyio.lowlevel.checkpoint()
            num_new = min(left, 3)
            left -= num_new
            yield TurnProgress(num_new, 0, finished=left == 0)
            if self.failure is not None:
                raise self.failure


def app_over(runner: FakeRunner) -> Starlette:
    return create_app(runner, model=MODEL, limits=EndpointLimits(max_body_bytes=100_000))


async def send(
    app: Starlette, body: bytes, path: str = "/v1/chat/completions", **kwargs
) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=kwargs.pop("raising", True))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(kwargs.pop("method", "POST"), path, content=body, **kwargs)


def chat(**fields) -> bytes:
    return json.dumps({"messages": HELLO, "max_tokens": 2, **fields}).encode()
