"""Has engines answer a call until one has: tries again elsewhere, and goes on with half a reply.

Before anything reached the client, an engine that is gone or busy costs another try. After that a
reply is gone on with where what was passed on can be given to another engine as the beginning of
its own reply; else it has failed.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

import anyio
from msgspec.structs import replace

from agent_runtime.engine_call import EngineCall, ReplyReader
from agent_runtime.errors import EngineBusyError, EngineLostError, UpstreamRefusedError
from agent_runtime.gateway.relay.relay_opening import OpenedCall, RelayOpening
from agent_runtime.turns import RunningTurn, TurnPlacement, TurnProgress
from scheduler.errors import InvariantError
from scheduler.ids import ReplicaId

MAX_ATTEMPTS = 5
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.05, 1.0
"""Before the third attempt and on; the second comes at once, as it goes elsewhere."""
NOT_FOUND = 404


class AttemptListener(Protocol):
    """Is told how a call fares."""

    def placed(self, placement: TurnPlacement) -> None:
        """A turn for it was sent to an engine."""
        ...

    def progressed(self, step: TurnProgress, reader: ReplyReader, replica_id: ReplicaId) -> None:
        """Some of its reply came."""
        ...

    def tries_again(self, *, resumes: bool) -> None:
        """An engine failed it; another one is asked, to go on if ``resumes``."""
        ...

    def not_understood(self, replica_id: ReplicaId) -> None:
        """The one engine that should know what it goes on with does not."""
        ...


class RelayAttempts:
    """The bytes of a call's answer, whichever engines give it. Leave the context to abort it.

    Args:
        opening: Makes turns of it.
        opened: The call.
        listener: Told how it fares.

    Attributes:
        num_attempts: So far.
    """

    __slots__ = (
        "_call", "_ended", "_failed", "_listener", "_opened", "_opening", "_passed_on", "_running",
        "_turn", "_under_way", "num_attempts",
    )  # fmt: skip

    def __init__(
        self, opening: RelayOpening, opened: OpenedCall, listener: AttemptListener
    ) -> None:
        self._opening = opening
        self._opened = opened
        self._listener = listener
        self._under_way = opening.opening.turn_under_way(opened.session)
        self._call: EngineCall = opened.call.engine_call()
        self._running: AbstractAsyncContextManager[RunningTurn] | None = None
        self._turn: RunningTurn | None = None
        self._failed: frozenset[ReplicaId] = frozenset()
        self._passed_on = False
        self._ended = False
        self.num_attempts = 0

    @property
    def reader(self) -> ReplyReader:
        """Of the reply under way."""
        return self._call.reader

    async def __aenter__(self) -> Self:
        self._under_way.__enter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._leave_turn()
        finally:
            self._under_way.__exit__(None, None, None)

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
                if not await self._recover(error):
                    raise
                continue
            except UpstreamRefusedError as error:
                if not await self._ask_elsewhere(error):
                    raise
                continue
            reader = self._call.reader
            self._listener.progressed(step, reader, turn.placement.replica_id)
            if step.finished:
                self._ended = True
                self._opening.answered(self._opened, self._call, reader.facts())
            if step.data:
                self._passed_on = self._passed_on or self._opened.call.streams
                return step.data
        raise StopAsyncIteration

    async def _begin(self) -> RunningTurn:
        self.num_attempts += 1
        avoid, only = self._failed, self._opened.call.only
        if only is not None:
            avoid |= self._opening.replicas - {only}
        request = self._opening.turn_request(
            self._opened,
            self._call,
            num_generated=self._call.reader.num_output_tokens,
            avoid=avoid,
        )
        running = self._opening.runner.open_turn(request)
        turn = await running.__aenter__()
        self._running, self._turn = running, turn  # until ``_leave_turn``
        self._listener.placed(turn.placement)
        return turn

    async def _recover(self, error: EngineLostError | EngineBusyError) -> bool:
        """Prepare another attempt; return whether there can be one.

        It does not raise the error itself: an error that was raised where a name leads to it holds
        on to all of the call until a garbage collection.
        """
        await self._leave_turn()
        if self.num_attempts >= MAX_ATTEMPTS:
            return False
        call: EngineCall | None
        if self._passed_on:
            call = self._opened.call.continuation(self._call.reader)
        else:
            self._let_others_understand()
            call = self._opened.call.engine_call()
        if call is None:
            return False
        self._listener.tries_again(resumes=self._passed_on)
        self._call = call
        self._failed |= {error.replica_id}
        if self.num_attempts > 1:
            await anyio.sleep(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (self.num_attempts - 2)))
        return True

    async def _ask_elsewhere(self, error: UpstreamRefusedError) -> bool:
        """Ask any engine, if the one that should have known a response did not; return whether."""
        only = self._opened.call.only
        if error.status != NOT_FOUND or only is None:
            return False
        self._listener.not_understood(only)
        if not self._let_others_understand():
            return False
        await self._leave_turn()
        self._call = self._opened.call.engine_call()
        return True

    def _let_others_understand(self) -> bool:
        """Make a call that one engine alone understands one for all; return whether it is."""
        elsewhere = self._opened.call.elsewhere()
        if elsewhere is not None:
            self._opened = replace(self._opened, call=elsewhere)
        return elsewhere is not None

    async def _leave_turn(self) -> None:
        running, self._running, self._turn = self._running, None, None
        if running is not None:
            await running.__aexit__(None, None, None)


def no_placement() -> InvariantError:
    """Return the error that a call was asked where it runs before it does."""
    return InvariantError("a relayed call was not placed yet")
