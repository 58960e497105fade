"""An httpx2 transport to an ASGI app in the same process that streams the response's body.

httpx's own runs the app to its end before it returns, so a client would see the last token's time
as the first's. This one returns as soon as the app has begun its response.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self, cast

import anyio
import httpx2
from anyio.abc import TaskGroup
from typing_extensions import override

from agent_runtime.asgi_exchange import AsgiApp
from agent_runtime.errors import BackendError
from agent_runtime.simulation import asgi_client


class StreamingAsgiTransport(httpx2.AsyncBaseTransport):
    """Sends requests to an app, and gives back its response chunk by chunk.

    The client that owns it enters and leaves it; what the app does for a request lives in its task
    group and is cancelled when the client closes.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._tasks: TaskGroup | None = None

    @override
    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    @override
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            # The tasks know nothing of the client's errors, which would come out in a group.
            await self._tasks.__aexit__(None, None, None)

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Begin a request; return when the app has begun its response.

        Raises:
            ReadTimeout: The app took longer than the client waits.
            BackendError: The client was not entered, or the app returned without a response.
        """
        if self._tasks is None:
            raise BackendError("enter the client (async with) before it sends requests")
        response = await asgi_client.send(httpx2, self._app, self._tasks.start_soon, request)
        return cast(httpx2.Response, response)
