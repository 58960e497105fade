"""Sends one request and reads its stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio

from agent_runtime.backends.vllm_servers.engine_http import (
    EngineHttp,
    EngineReply,
    EngineUnreachableError,
)
from agent_runtime.load_test.call_errors import CallFailedError, ErrorKind, http_error
from agent_runtime.load_test.reply_reader import ReplyReader
from agent_runtime.load_test.silence_watch import SilenceWatch, WatchedCall
from agent_runtime.load_test.turn_record import TurnRecord

OK = 200
END_S = 1.0
"""How long the end of a body may come after the last event."""

MAX_ERROR_BYTES = 64 << 10
"""Of an error's body; a server that streams more is not listened to."""


@dataclass(frozen=True, slots=True)
class ModelCaller:
    """Calls a server's chat completions.

    Attributes:
        http: How it is reached.
        url: Of the route.
        watch: Gives up calls.
        now_s: The time since the run began.
    """

    http: EngineHttp
    url: str
    watch: SilenceWatch
    now_s: Callable[[], float]

    async def call(self, record: TurnRecord, body: bytes, headers: dict[str, str]) -> ReplyReader:
        """Send a request, read the reply into the record; return who has read it.

        Raises:
            CallFailedError: There was no whole reply; the record has what came.
        """
        reader = ReplyReader(record)
        record.sent_s = self.now_s()
        try:
            with self.watch.watched() as call:
                await self._read(reader, call, body, headers)
            self.watch.check(call, record.output_tokens)
        except CallFailedError as error:
            record.error, record.ended_s = error.kind, self.now_s()
            raise
        return reader

    async def _read(
        self, reader: ReplyReader, call: WatchedCall, body: bytes, headers: dict[str, str]
    ) -> None:
        try:
            reply = await self.http.send("POST", self.url, body, headers)
        except EngineUnreachableError as error:
            raise CallFailedError(ErrorKind.CONNECTION, str(error)) from error
        call.heard_s = self.now_s()
        try:
            if reply.status != OK:
                raise http_error(reply.status, await _error_body(reply))
            if "event-stream" not in reply.content_type:
                raise CallFailedError(
                    ErrorKind.NO_STREAM, f"its content type is {reply.content_type!r}"
                )
            while not reader.is_over and (data := await reply.next_bytes()):
                now_s = call.heard_s = self.now_s()
                reader.take(data, now_s)
            reader.end()
            reader.record.ended_s = self.now_s()
            if not reply.is_at_end:
                with anyio.move_on_after(END_S):
                    await reply.next_bytes()  # the body's end, so that the connection is kept
        except EngineUnreachableError as error:
            raise CallFailedError(ErrorKind.BROKEN_STREAM, str(error)) from error
        finally:
            reply.close()


async def _error_body(reply: EngineReply) -> bytes:
    """Return what there is of it: that it broke off says less than its status."""
    body = b""
    with suppress(EngineUnreachableError):
        while len(body) < MAX_ERROR_BYTES and (data := await reply.next_bytes()):
            body += data
    return body
