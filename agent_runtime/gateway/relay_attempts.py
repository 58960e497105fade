"""Has engines answer a call until one has: tries again elsewhere, and goes on with half a reply.

Before anything reached the client, an engine that is gone or busy costs another try. After that a
reply is gone on with where what was passed on can be given to another engine as the beginning of
its own reply; else it has failed.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio

from agent_runtime.engine_call import EngineCall
from agent_runtime.errors import EngineBusyError, EngineLostError
from agent_runtime.gateway.relay_opening import OpenedCall, RelayOpening
from agent_runtime.turns import RunningTurn
from scheduler.ids import ReplicaId

MAX_ATTEMPTS = 5
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.05, 1.0
"""Before the third attempt and on; the second comes at once, as it goes elsewhere."""


class RelayAttempts:
    """The bytes of a call's answer, whichever engines give it. Leave the context to abort it.

    Args:
        opening: Makes turns of it.
        opened: The call.

    Attributes:
        num_attempts: So far.
    """

    def __init__(self, opening: RelayOpening, opened: OpenedCall) -> None:
        self._opening = opening
        self._opened = opened
        self._call: EngineCall = opened.call.engine_call()
        self._stack = AsyncExitStack()
        self._turn: RunningTurn | None = None
        self._failed: frozenset[ReplicaId] = frozenset()
        self._passed_on = False
        self._ended = False
        self.num_attempts = 0

    async def __aenter__(self) -> Self:
        self._session = self._opened.session.turn_under_way()
        self._session.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._stack.aclose()
        finally:
            self._session.__exit__(exc_type, exc_value, traceback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return what came since.

        Raises:
            UpstreamRefusedError: The engine's answer is an error.
            BackendError: No engine could answer, or one broke off and none can go on.
        """
        while not self._ended:
            try:
                turn = self._turn
                if turn is None:
                    turn = await self._begin()
                step = await anext(turn)
            except (EngineLostError, EngineBusyError) as error:
                await self._recover(error)
                continue
            if step.finished:
                self._ended = True
                self._opening.answered(self._opened, self._call, self._call.reader.facts())
            if step.data:
                self._passed_on = self._passed_on or self._opened.call.streams
                return step.data
        raise StopAsyncIteration

    async def _begin(self) -> RunningTurn:
        self.num_attempts += 1
        request = self._opening.turn_request(
            self._opened,
            self._call,
            num_generated=self._call.reader.num_output_tokens,
            avoid=self._failed,
        )
        runner = self._opening.runner
        self._turn = await self._stack.enter_async_context(runner.open_turn(request))
        return self._turn

    async def _recover(self, error: EngineLostError | EngineBusyError) -> None:
        """Prepare another attempt.

        Raises:
            EngineLostError, EngineBusyError: The one given: there can't be one.
        """
        self._turn = None
        await self._stack.aclose()
        if self.num_attempts >= MAX_ATTEMPTS:
            raise error
        call = (
            self._opened.call.continuation(self._call.reader)
            if self._passed_on
            else self._opened.call.engine_call()
        )
        if call is None:
            raise error
        self._call = call
        self._failed |= {error.replica_id}
        if self.num_attempts > 1:
            await anyio.sleep(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (self.num_attempts - 2)))
