"""One turn on a real engine: an HTTP request whose answer is read as fast as it is taken.

Nothing is read ahead: a client that takes no bytes leaves them in the engine's socket, and closing
the connection has vLLM abort what it runs.
"""

from __future__ import annotations

from typing import Protocol, Self

import anyio

from agent_runtime.backends.vllm_servers.engine_http import (
    EngineHttp,
    EngineReply,
    EngineUnreachableError,
)
from agent_runtime.engine_call import EngineCall
from agent_runtime.errors import (
    BackendStoppedError,
    EngineBusyError,
    EngineLostError,
    UpstreamRefusedError,
)
from agent_runtime.turns import TurnOutcome, TurnProgress
from scheduler.ids import ReplicaId

FIRST_ERROR_STATUS = 400
MAX_ERROR_BYTES = 1 << 20
"""Of what an engine says of an error; the rest is not waited for."""
BUSY = 503


class TurnListener(Protocol):
    """Whom a turn tells how its engine does."""

    def answered(self) -> None:
        """The engine answered, if only with an error of the caller's."""
        ...

    def failed(self, problem: str, *, certain: bool) -> None:
        """It could not be reached, broke off, or said it can't."""
        ...

    def first_token(self) -> None:
        """The first output token came."""
        ...

    def said_all(self, reply: EngineReply) -> None:
        """Nothing is left of a reply but its end, after which its connection serves others."""
        ...

    def ended(self, call: EngineCall) -> None:
        """The turn is over."""
        ...


class EngineTurn:
    """The progress of a turn, pulled.

    Args:
        http: How engines are reached.
        url: Where to post.
        call: What, as this engine gets it.
        replica_id: Which engine.
        listener: Told how it does.
        num_cached_tokens: Of the prompt, expected to be there; the engine tells only at the end.
    """

    __slots__ = (
        "_began", "_call", "_closed", "_http", "_listener", "_num_cached_tokens", "_num_reads",
        "_num_tokens", "_opening", "_replica_id", "_reply", "_seen", "_url", "_waits",
    )  # fmt: skip

    def __init__(
        self,
        http: EngineHttp,
        url: str,
        call: EngineCall,
        *,
        replica_id: ReplicaId,
        listener: TurnListener,
        num_cached_tokens: int,
    ) -> None:
        self._http = http
        self._url = url
        self._call = call
        self._replica_id = replica_id
        self._listener = listener
        self._num_cached_tokens = num_cached_tokens
        self._reply: EngineReply | None = None
        self._num_tokens = call.reader.num_output_tokens
        self._began = False
        self._closed = False
        self._opening = anyio.CancelScope()
        self._waits = False  # for the engine
        self._num_reads = 0
        self._seen = -1, 0.0  # reads, and when there were so many

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TurnProgress:
        if self._closed:
            raise StopAsyncIteration
        reply = self._reply
        if reply is None:
            reply = self._reply = await self._open()
        reader = self._call.reader
        while True:
            self._waits = True
            try:
                data = await reply.next_bytes()
            except EngineUnreachableError as error:
                if self._closed:  # by ourselves
                    raise BackendStoppedError from error
                raise self._lost(str(error)) from error
            finally:
                self._waits = False
            self._num_reads += 1
            if not data:
                return self._finish(reader.end())
            self._began = True
            out = reader.feed(data)
            if reader.is_complete:  # clients may leave now, before the engine has closed the reply
                return self._finish(out)
            num_new = max(0, reader.num_output_tokens - self._num_tokens)
            if out or num_new:
                if num_new and self._num_tokens == 0:
                    self._listener.first_token()
                self._num_tokens += num_new
                return TurnProgress(num_new, self._num_cached_tokens, finished=False, data=out)

    def break_off_if_stalled(self, now_s: float, stall_s: float) -> None:
        """Give up an engine that is down and has sent nothing for so long.

        To be called again and again; what was received since the last call is no stall.
        """
        if not self._waits or self._num_reads != self._seen[0]:
            self._seen = self._num_reads, now_s
        elif now_s - self._seen[1] >= stall_s:
            self._opening.cancel()
            if self._reply is not None:
                self._reply.close()

    def close(self) -> None:
        """Have the engine stop, if it has not."""
        if not self._closed:
            self._closed = True
            if self._reply is not None:
                if self._call.reader.is_complete:
                    self._listener.said_all(self._reply)
                else:
                    self._reply.close()
            self._listener.ended(self._call)

    async def _open(self) -> EngineReply:
        """Send the request; return once the answer has begun, with success."""
        call = self._call
        self._waits = True
        try:
            with self._opening:
                reply = await self._http.send("POST", self._url, call.body, call.headers)
            self._waits = False
            if self._opening.cancelled_caught:
                raise self._lost("it does not answer")
            if reply.status < FIRST_ERROR_STATUS:
                self._listener.answered()
                return reply
            body = await _start_of(reply)
        except EngineUnreachableError as error:
            raise self._lost(str(error), certain=error.refused) from error
        wait = reply.retry_after
        refused = UpstreamRefusedError(
            reply.status, body, float(wait) if wait.isdecimal() else None
        )
        if reply.status == BUSY:
            self._listener.failed(str(refused), certain=False)
            self.close()
            raise EngineBusyError(refused, self._replica_id)
        self._listener.answered()
        self.close()
        try:
            raise refused
        finally:
            del refused  # or it would lead to itself, and hold on to the call

    def _finish(self, data: bytes) -> TurnProgress:
        """Return the last progress, with the last bytes."""
        reader = self._call.reader
        if not reader.is_complete:
            raise self._lost("its reply ended before it was complete")
        facts = reader.facts()
        num_new = max(0, facts.num_output_tokens - self._num_tokens)
        if num_new and self._num_tokens == 0:
            self._listener.first_token()
        outcome = None
        if facts.num_prompt_tokens is not None:
            num_context = facts.num_prompt_tokens + facts.num_output_tokens
            outcome = TurnOutcome(num_context, self._call.gap_after(facts))
        num_cached = facts.num_cached_tokens
        if num_cached is None:
            num_cached = self._num_cached_tokens
        self.close()
        return TurnProgress(num_new, num_cached, finished=True, data=data, outcome=outcome)

    def _lost(self, problem: str, *, certain: bool = False) -> EngineLostError:
        self._listener.failed(problem, certain=certain)
        self.close()
        return EngineLostError(
            f"engine {self._replica_id} was lost: {problem}",
            replica_id=self._replica_id,
            began=self._began,
        )


async def _start_of(reply: EngineReply) -> bytes:
    """Return the body of an answer, or as much of it as is read."""
    body = bytearray()
    while data := await reply.next_bytes():
        body += data
        if len(body) > MAX_ERROR_BYTES:
            reply.close()
            break
    return bytes(body[:MAX_ERROR_BYTES])
