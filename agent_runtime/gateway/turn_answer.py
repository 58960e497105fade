"""An answer in one piece, sent once its turns have ended; what was entered for them is left after.

The end of a turn is taken in before: a slow reader must not keep it from the scheduler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_runtime.errors import BackendError, BackendStoppedError, RequestError
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.error_mapping import CLIENT_CLOSED_REQUEST
from agent_runtime.gateway.leaving import Leaving, leave_on_disconnect
from agent_runtime.gateway.turn_stream import StreamEnds


class TurnAnswer:
    """An ASGI app; ends the turns when the client leaves.

    Args:
        respond: Has the turns run, leaving in the stack what is to be left at the end, and returns
            their answer.
        ends: How it may end otherwise.
        headers: Of the response, however it ends.
        closing: Of the endpoint.
    """

    __slots__ = ("_closing", "_ends", "_headers", "_respond")

    def __init__(
        self,
        respond: Callable[[AsyncExitStack], Awaitable[Response]],
        ends: StreamEnds,
        headers: Mapping[str, str],
        closing: Closing,
    ) -> None:
        self._respond, self._ends = respond, ends
        self._headers, self._closing = headers, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        has_begun = False
        failure: RequestError | BackendError | None = None
        async with (
            leave_on_disconnect(scope, receive, self._ends.cancelled) as leaving,
            AsyncExitStack() as stack,
        ):
            stack.enter_context(self._closing.under_way(leaving.stop))
            try:
                response = await self._respond(stack)
            except (RequestError, BackendError) as error:
                failure = error.with_traceback(None)  # or it would lead to itself
            else:
                has_begun = True
                await self._with_headers(response)(scope, receive, send)
        if not has_begun:
            otherwise = self._otherwise(failure, leaving)
            await self._with_headers(otherwise)(scope, receive, send)

    def _otherwise(self, failure: RequestError | BackendError | None, leaving: Leaving) -> Response:
        if leaving.was_stopped:
            failure = BackendStoppedError()
        if failure is not None:
            return self._ends.response(failure)
        cut_short = self._ends.cut_short_whole
        if cut_short is not None:
            response = cut_short()
            if leaving.was_cancelled:
                return response
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    def _with_headers(self, response: Response) -> Response:
        response.raw_headers += [
            (name.encode(), value.encode("latin-1")) for name, value in self._headers.items()
        ]
        return response
