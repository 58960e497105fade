"""The core behind every dialect of the emulated model: read, plan the turns, say what they say."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import AnswerForm, AnswerHead, Dialect, Kept
from agent_runtime.gateway.error_mapping import error_response
from agent_runtime.gateway.planned_turn import PlannedTurn, TurnPlanner
from agent_runtime.gateway.running_answer import RunningAnswer, TurnBooks, run_answer
from agent_runtime.gateway.turn_desk import ReadyAnswer, TurnDesk, respond
from agent_runtime.gateway.turn_stream import StreamEnds
from agent_runtime.gateway.turn_telemetry import WatchedTurn
from agent_runtime.turns import TurnPlacement

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class AnswerDesk:
    """What all dialects of the emulated model share.

    Attributes:
        turns: What is around their turns.
        planner: Says what is answered.
        model: The model's name, as answers give it.
        epoch_s: Seconds since 1970, for timestamps.
    """

    turns: TurnDesk
    planner: TurnPlanner
    model: str
    epoch_s: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Answering(Generic[R]):
    """One route: a dialect over the desk.

    Attributes:
        dialect: Which.
        desk: What all share.
    """

    dialect: Dialect[R]
    desk: AnswerDesk

    async def answer(self, request: Request) -> ASGIApp:
        """Answer one request."""
        desk = self.desk
        body, caller = await desk.turns.take(request)
        asked, neutral = await self.dialect.read(body, caller)
        turn = await desk.planner.plan(neutral, caller)
        head = AnswerHead(request.state.request_id, int(desk.epoch_s()), desk.model)
        form = self.dialect.form(asked, turn, head)
        ready = ReadyAnswer(
            self.dialect.name,
            turn.session,
            neutral.stream,
            partial(self._begin, turn, form, caller.now_s),
            _ends_of(form, request.scope["path"]),
        )
        return respond(desk.turns, ready, request)

    async def _begin(
        self,
        turn: PlannedTurn,
        form: AnswerForm,
        arrived_s: float,
        watched: WatchedTurn,
        stack: AsyncExitStack,
    ) -> FormedAnswer:
        books = TurnBooks(self.desk.turns.opening, watched, arrived_s)
        return FormedAnswer(await run_answer(turn, books, stack), form)


@dataclass(frozen=True, slots=True)
class FormedAnswer:
    """A ``LiveAnswer`` in the form of a dialect."""

    running: RunningAnswer
    form: AnswerForm

    @property
    def placement(self) -> TurnPlacement:
        """What was decided about its first turn."""
        return self.running.placement

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Return the events of a stream."""
        if opening := self.form.opening():
            yield opening
        async for number, step in self.running:
            if event := self.form.step(number, step):
                yield event
        closing = self.form.closing(self.running.used)
        await _settle(self.form)
        yield closing

    async def whole(self) -> Response:
        """Return the response."""
        async for _ in self.running:
            pass
        whole = self.form.whole(self.running.used)
        await _settle(self.form)
        return JSONResponse(whole)


async def _settle(form: AnswerForm) -> None:
    """Let nobody go on with an answer that a restart would forget."""
    if isinstance(form, Kept):
        await form.settled()


def _ends_of(form: AnswerForm, path: str) -> StreamEnds:
    def response(error: RequestError | BackendError) -> Response:
        form.failure(error)  # it has to know: some forms are kept
        return error_response(error, path)

    if not isinstance(form, Kept):
        return StreamEnds(form.failure, response)
    return StreamEnds(
        form.failure,
        response,
        form.cancelled,
        form.cut_short_events,
        lambda: JSONResponse(form.cut_short()),
    )
