"""Everything around a request's turns that is the same whatever runs them.

A request is let in and read here. Once it is known what to run (``ReadyAnswer``), it is counted,
and answered whole or as a stream that lives as long as its client.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from agent_runtime.errors import BackendError, BackendStoppedError, RequestError
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.dialect import DialectName
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.request_limit import RequestLimit
from agent_runtime.gateway.session_directory import ChatSession
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.gateway.tenants import tenant_of
from agent_runtime.gateway.turn_answer import TurnAnswer
from agent_runtime.gateway.turn_stream import HoldTerms, OpenedStream, StreamEnds, TurnStream
from agent_runtime.gateway.turn_telemetry import (
    TURN_SPAN,
    Outcome,
    TurnCounts,
    TurnSpan,
    WatchedTurn,
)
from agent_runtime.session_headers import DECISION_HEADER, SESSION_HEADER, header_of
from agent_runtime.turns import TurnPlacement

CLIENT_ERRORS, TOO_MANY = range(400, 500), 429


@dataclass(frozen=True, slots=True)
class TurnDesk:
    """What all routes that run turns share.

    Attributes:
        opening: Reads requests and finds their sessions.
        limit: Of requests under way.
        counts: Told of every request.
        hold: How streams behave while their turns are held.
    """

    opening: Opening
    limit: RequestLimit
    counts: TurnCounts
    hold: HoldTerms

    async def take(self, request: Request) -> tuple[bytes, Caller]:
        """Let a request in; return its body and who sent it.

        Raises:
            TooManyRequestsError: As many are under way as may be.
            BodyTooLargeError: Over the limit.
            ClientDisconnect: The client left.
            BackendStoppedError: The endpoint closes, or began to while the body came.
        """
        closing = self.opening.closing
        closing.check()
        self.limit.check()
        body = await self.opening.read(request)
        closing.check()
        now_s = self.opening.runner.now_s()
        return body, Caller(plain_headers(request), tenant_of(request), now_s)


class LiveAnswer(Protocol):
    """An answer whose turns run; it is taken whole or as events, once."""

    @property
    def placement(self) -> TurnPlacement:
        """What was decided about its first turn."""
        ...

    def events(self) -> AsyncGenerator[bytes, None]:
        """Return the events of a stream.

        Raises:
            BackendError: While iterating; it can't go on.
        """
        ...

    async def whole(self) -> Response:
        """Return the response, once everything is there.

        Raises:
            BackendError: It does not come to its end.
        """
        ...


class ReadyAnswer(msgspec.Struct, frozen=True):
    """A request of which everything is known but its answer.

    Attributes:
        dialect: It came in.
        session: Whose turn it is.
        streams: Whether the answer is wanted as it comes.
        begin: Has its turns run until the stack is left; raises ``RequestError`` or
            ``BackendError`` where they can't be.
        ends: How it ends that does not end well.
    """

    dialect: DialectName
    session: ChatSession
    streams: bool
    begin: Callable[[WatchedTurn, AsyncExitStack], Awaitable[LiveAnswer]]
    ends: StreamEnds


def respond(desk: TurnDesk, ready: ReadyAnswer, request: Request) -> ASGIApp:
    """Return the response to a request, which has its turns run."""
    headers = {SESSION_HEADER: header_of(ready.session.public_id)}
    span: TurnSpan | None = (request.scope.get("state") or {}).get(TURN_SPAN)
    if span is not None:
        span.began(ready.session.public_id)
    run, closing = partial(_run, desk, ready, span), desk.opening.closing
    if ready.streams:
        open_stream = partial(_opened_stream, run)
        return TurnStream(open_stream, ready.ends, headers, desk.hold, closing)
    return TurnAnswer(partial(_whole, run), ready.ends, headers, closing)


Run: TypeAlias = Callable[[AsyncExitStack], Awaitable[LiveAnswer]]


async def _run(
    desk: TurnDesk, ready: ReadyAnswer, span: TurnSpan | None, stack: AsyncExitStack
) -> LiveAnswer:
    """Have the turns run until the stack is left, and count the request.

    Raises:
        RequestError: They can't be run.
        BackendError: The backend takes none.
    """
    stack.enter_context(desk.limit.under_way())
    line = desk.opening.line if ready.session.is_new else None
    watched = WatchedTurn(desk.counts, ready.dialect, line, span)
    stack.callback(_forget_if_refused, desk.opening, ready.session, watched)
    stack.enter_context(watched)
    stack.callback(_note_if_cut, desk.opening.closing, watched)
    try:
        return await ready.begin(watched, stack)
    except (RequestError, BackendError) as error:
        watched.broke(error)
        raise


def _forget_if_refused(opening: Opening, session: ChatSession, watched: WatchedTurn) -> None:
    status = watched.error_status
    # Who is to come again later is waited for.
    if status is not None and status in CLIENT_ERRORS and status != TOO_MANY:
        opening.refused(session)


def _note_if_cut(closing: Closing, watched: WatchedTurn) -> None:
    if closing.was_cut and watched.outcome is Outcome.ABORTED:
        watched.broke(BackendStoppedError())


async def _whole(run: Run, stack: AsyncExitStack) -> Response:
    live = await run(stack)
    response = await live.whole()
    decision = decision_text(live.placement).encode("latin-1")
    response.raw_headers.append((DECISION_HEADER.encode(), decision))
    return response


async def _opened_stream(run: Run, stack: AsyncExitStack) -> OpenedStream:
    live = await run(stack)
    decision = decision_text(live.placement)
    note = f": {decision}\n\n".encode()
    return OpenedStream(live.events(), {DECISION_HEADER: decision}, note)


def decision_text(placement: TurnPlacement) -> str:
    """Return a decision as it stands in a header."""
    return (
        f"replica={placement.replica_id}; waited_ms={round(placement.waited_s * 1000)}; "
        f"expected_cached_tokens={placement.num_expected_cached_tokens}; "
        f"reason={placement.reason.value}"
    )


def plain_headers(request: Request) -> dict[str, str]:
    """Return a request's headers, decoded once: Starlette's are searched at every look."""
    # Of a header that comes twice the first one counts, as there.
    return {k.decode("latin-1"): v.decode("latin-1") for k, v in reversed(request.scope["headers"])}
