"""What engines are asked beside turns: counting and cutting tokens, answers that they keep.

Nothing of it is scheduled. It may be asked again elsewhere, as it changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet, EngineSlot, SlotState
from agent_runtime.backends.vllm_servers.engine_http import (
    EngineHttp,
    EngineReply,
    EngineUnreachableError,
)
from agent_runtime.errors import EngineLostError, NoEngineError
from scheduler.ids import ReplicaId

BUSY, NOT_FOUND = 503, 404
MAX_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Errand:
    """A request.

    Attributes:
        method: HTTP's.
        path: With the query.
        body: May be empty.
        headers: To pass on.
    """

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ErrandReply:
    """An answer that has begun.

    Attributes:
        replica_id: Who gives it.
        reply: The answer; closed by whoever opened it.
    """

    replica_id: ReplicaId
    reply: EngineReply

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield its body as it comes.

        Raises:
            EngineLostError: It broke off.
        """
        try:
            while data := await self.reply.next_bytes():
                yield data
        except EngineUnreachableError as error:
            raise _lost(self.replica_id, error, began=True) from error

    async def whole(self) -> bytes:
        """Return its body.

        Raises:
            EngineLostError: It broke off, or has no end.
        """
        body = bytearray()
        async for data in self.chunks():
            body += data
            if len(body) > MAX_ANSWER_BYTES:
                raise EngineLostError(
                    f"engine {self.replica_id} was lost: an answer of more than "
                    f"{MAX_ANSWER_BYTES} bytes",
                    replica_id=self.replica_id,
                    began=True,
                )
        return bytes(body)


class EngineErrands:
    """Runs errands.

    Args:
        fleet: The engines.
        http: How they are reached.
    """

    def __init__(self, fleet: EngineFleet, http: EngineHttp) -> None:
        self._fleet, self._http = fleet, http
        self._next = 0  # in turn, so that no engine has them all

    @asynccontextmanager
    async def ask(self, replica_id: ReplicaId, errand: Errand) -> AsyncIterator[ErrandReply]:
        """Ask one engine; its answer is closed when the context is left.

        Raises:
            EngineLostError: It does not answer.
        """
        opened = await self._opened(self._fleet.slots[replica_id], errand)
        try:
            yield opened
        finally:
            opened.reply.close()

    @asynccontextmanager
    async def ask_any(
        self, errand: Errand, *, until_found: bool = False
    ) -> AsyncIterator[ErrandReply]:
        """Ask one engine after the other, until one answers and is not too busy.

        Args:
            errand: What to ask.
            until_found: Whether a 404 means to ask the next one too.

        Raises:
            NoEngineError: None is up.
            EngineLostError: None answers.
        """
        slots = [s for s in self._fleet.slots if s.state in {SlotState.UP, SlotState.DRAINING}]
        if not slots:
            raise NoEngineError
        self._next = (self._next + 1) % len(slots)
        lost: EngineLostError | None = None
        opened: ErrandReply | None = None
        passed_over = {BUSY, NOT_FOUND} if until_found else {BUSY}
        try:
            for slot in slots[self._next :] + slots[: self._next]:
                try:
                    another = await self._opened(slot, errand)
                except EngineLostError as error:
                    lost = error
                    continue
                if opened is not None:
                    opened.reply.close()
                opened = another
                if opened.reply.status not in passed_over:
                    break
            if opened is None:
                raise lost or NoEngineError()
            yield opened
        finally:
            if opened is not None:
                opened.reply.close()

    async def _opened(self, slot: EngineSlot, errand: Errand) -> ErrandReply:
        if slot.address is None:
            raise EngineLostError("the engine has left", replica_id=slot.replica_id, began=False)
        url = slot.address.url + errand.path
        try:
            reply = await self._http.send(errand.method, url, errand.body, errand.headers)
        except EngineUnreachableError as error:
            raise _lost(slot.replica_id, error, began=False) from error
        return ErrandReply(slot.replica_id, reply)


def _lost(replica_id: ReplicaId, error: EngineUnreachableError, *, began: bool) -> EngineLostError:
    return EngineLostError(
        f"engine {replica_id} was lost: {error}", replica_id=replica_id, began=began
    )
