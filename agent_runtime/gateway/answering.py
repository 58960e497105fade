"""The core behind every dialect: read, find the session, run the turns, send what they say."""

from __future__ import annotations

import string
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import AnswerForm, AnswerHead, Cancellable, Dialect
from agent_runtime.gateway.error_mapping import CLIENT_CLOSED_REQUEST, error_response
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.planned_turn import PlannedTurn, TurnPlanner
from agent_runtime.gateway.request_limit import RequestLimit
from agent_runtime.gateway.running_answer import RunningAnswer, TurnBooks, run_answer
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.gateway.tenants import tenant_of
from agent_runtime.gateway.turn_stream import (
    HoldTerms,
    OpenedStream,
    StreamEnds,
    TurnStream,
    leave_on_disconnect,
)
from agent_runtime.gateway.turn_telemetry import TurnCounts, watched_turn
from agent_runtime.turns import TurnPlacement

HEADER_SAFE = string.punctuation.replace("%", "") + " "
"""What a session id keeps in a header; the rest, such as non-ASCII, is percent-encoded."""
DECISION_HEADER = "x-panjiu-decision"

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class AnswerDesk:
    """What all dialects share.

    Attributes:
        opening: Reads requests and finds their sessions.
        planner: Says what is answered.
        model: The model's name, as answers give it.
        epoch_s: Seconds since 1970, for timestamps.
        limit: Of requests under way.
        counts: Told of every request.
        hold: How streams behave while their turns are held.
    """

    opening: Opening
    planner: TurnPlanner
    model: str
    epoch_s: Callable[[], float]
    limit: RequestLimit
    counts: TurnCounts
    hold: HoldTerms


@dataclass(frozen=True, slots=True)
class Answering(Generic[R]):
    """One route: a dialect over the desk.

    Attributes:
        dialect: Which.
        desk: What all share.
    """

    dialect: Dialect[R]
    desk: AnswerDesk

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        desk = self.desk
        desk.limit.check()
        try:
            body = await desk.opening.read(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        caller = Caller(request.headers, tenant_of(request), desk.opening.runner.now_s())
        asked, neutral = self.dialect.read(body, caller)
        turn = desk.planner.plan(neutral, caller)
        head = AnswerHead(request.state.request_id, int(desk.epoch_s()), desk.model)
        form = self.dialect.form(asked, turn, head)
        headers = {"x-session-id": quote(turn.session.public_id, safe=HEADER_SAFE)}
        run = partial(self._run, turn, caller.now_s)
        if neutral.stream:
            return TurnStream(
                partial(_opened_stream, run, form),
                _ends_of(form, request.url.path),
                headers,
                desk.hold,
            )
        return await _whole(run, form, request, headers)

    async def _run(
        self, turn: PlannedTurn, arrived_s: float, stack: AsyncExitStack
    ) -> RunningAnswer:
        """Have the turns run until the stack is left.

        Raises:
            RequestError: They can't be run.
            BackendError: The backend takes none.
        """
        desk = self.desk
        stack.enter_context(desk.limit.under_way())
        watched = stack.enter_context(watched_turn(desk.counts, self.dialect.name))
        try:
            return await run_answer(turn, TurnBooks(desk.opening, watched, arrived_s), stack)
        except (RequestError, BackendError) as error:
            watched.broke(error)
            raise


Run: TypeAlias = Callable[[AsyncExitStack], Awaitable[RunningAnswer]]


async def _whole(run: Run, form: AnswerForm, request: Request, headers: dict[str, str]) -> Response:
    failure: RequestError | BackendError | None = None
    response: Response | None = None
    cancellable = form if isinstance(form, Cancellable) else None
    cancelled = None if cancellable is None else cancellable.cancelled
    async with (
        leave_on_disconnect(request.receive, cancelled) as leaving,
        AsyncExitStack() as stack,
    ):
        try:
            running = await run(stack)
            async for _ in running:
                pass
        except (RequestError, BackendError) as error:
            failure = error
        else:
            decision = {DECISION_HEADER: decision_text(running.placement)}
            response = JSONResponse(form.whole(running.used), headers={**headers, **decision})
    if response is not None:
        return response
    if failure is not None:
        form.failure(failure)  # it has to know: some forms are kept
        return error_response(failure, request.url.path)
    if cancellable is not None:
        body = cancellable.cut_short()
        if leaving.was_cancelled:
            return JSONResponse(body, headers=headers)
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _opened_stream(run: Run, form: AnswerForm, stack: AsyncExitStack) -> OpenedStream:
    running = await run(stack)
    decision = decision_text(running.placement)
    note = f": {decision}\n\n".encode()
    return OpenedStream(_events(running, form), {DECISION_HEADER: decision}, note)


async def _events(running: RunningAnswer, form: AnswerForm) -> AsyncGenerator[bytes, None]:
    if opening := form.opening():
        yield opening
    async for number, step in running:
        if event := form.step(number, step):
            yield event
    yield form.closing(running.used)


def _ends_of(form: AnswerForm, path: str) -> StreamEnds:
    def response(error: RequestError | BackendError) -> Response:
        form.failure(error)  # it has to know: some forms are kept
        return error_response(error, path)

    if isinstance(form, Cancellable):
        return StreamEnds(form.failure, response, form.cancelled, form.cut_short_events)
    return StreamEnds(form.failure, response)


def decision_text(placement: TurnPlacement) -> str:
    """Return a decision as it stands in a header."""
    return (
        f"replica={placement.replica_id}; waited_ms={round(placement.waited_s * 1000)}; "
        f"expected_cached_tokens={placement.num_expected_cached_tokens}; "
        f"reason={placement.reason.value}"
    )
