"""Reads a streamed reply into a turn's record."""

from __future__ import annotations

import math

import msgspec

from agent_runtime.errors import WireFormatError
from agent_runtime.event_stream import EventStreamParser
from agent_runtime.load_test.call_errors import CallFailedError, ErrorKind
from agent_runtime.load_test.chunk_wire import Chunk, Usage, read_chunk
from agent_runtime.load_test.turn_record import TurnRecord
from agent_runtime.undecodable import UNDECODABLE

DONE = b"[DONE]"


class ReplyReader:
    """Takes a reply's bytes as they come.

    Args:
        record: Filled in.

    Attributes:
        record: The same.
        is_over: Whether the stream said so.
    """

    __slots__ = ("_has_finish_reason", "_num_letters", "_parser", "_texts", "is_over", "record")

    def __init__(self, record: TurnRecord) -> None:
        self.is_over = False
        self.record = record
        self._parser = EventStreamParser()
        self._texts: list[str] = []
        self._has_finish_reason = False
        self._num_letters = 0

    @property
    def text(self) -> str:
        """What has been said so far, without reasoning and tool calls."""
        return "".join(self._texts)

    @property
    def text_tokens(self) -> int:
        """About how many of the reply's tokens ``text`` has, by its share of the letters."""
        letters = len(self.text)
        share = 1.0 if letters >= self._num_letters else letters / self._num_letters
        return round(self.record.output_tokens * share)

    def take(self, data: bytes, now_s: float) -> None:
        """Take in bytes that came at ``now_s``.

        Raises:
            CallFailedError: They say that the call failed, or can't be read.
        """
        try:
            for event in self._parser.feed(data):
                if event == DONE:
                    self.is_over = True
                    return
                self._take_chunk(read_chunk(event), now_s)
        except (*UNDECODABLE, WireFormatError) as error:
            raise CallFailedError(
                ErrorKind.BROKEN_STREAM, f"an unreadable event: {error}"
            ) from error

    def end(self) -> None:
        """Check a stream that has ended.

        Raises:
            CallFailedError: It broke off, or held nothing.
        """
        if not (self.is_over or self._has_finish_reason):
            raise CallFailedError(
                ErrorKind.BROKEN_STREAM,
                f"it ended after {self.record.output_tokens} tokens without a finish_reason or "
                "[DONE]",
            )
        if math.isnan(self.record.first_s):
            raise CallFailedError(ErrorKind.EMPTY_REPLY, "the reply ended without a token")

    def _take_chunk(self, chunk: Chunk, now_s: float) -> None:
        if chunk.error is not None:
            shown = msgspec.json.encode(chunk.error).decode("utf-8", "replace")
            raise CallFailedError(ErrorKind.ERROR_IN_STREAM, shown)
        if not chunk.choices:
            if chunk.usage is not None:
                self._take_usage(chunk.usage)
            return
        choice = chunk.choices[0]
        if choice.finish_reason is not None:
            self._has_finish_reason = True
        says_something = choice.delta is not None and choice.delta.says_something
        if choice.delta is not None and says_something:
            self._num_letters += choice.delta.num_letters
            if choice.delta.content:
                self._texts.append(choice.delta.content)
        usage = chunk.usage
        if usage is not None and usage.completion_tokens is not None:
            num_new = usage.completion_tokens - self.record.output_tokens
            self.record.counts_known = True
            self._take_usage(usage)
        else:
            num_new = int(says_something)
            self.record.output_tokens += num_new
        if num_new > 0:
            self._token(num_new, now_s)

    def _token(self, num_new: int, now_s: float) -> None:
        record = self.record
        if math.isnan(record.first_s):
            record.first_s, record.first_tokens = now_s, num_new
        else:
            record.gaps_s.append(now_s - record.last_s)
            record.gap_tokens.append(num_new)
        record.last_s = now_s

    def _take_usage(self, usage: Usage) -> None:
        record = self.record
        if usage.completion_tokens is not None:
            record.output_tokens = usage.completion_tokens
        if usage.prompt_tokens is not None:
            record.prompt_tokens = usage.prompt_tokens
        details = usage.prompt_tokens_details
        if details is not None and details.cached_tokens is not None:
            record.cached_tokens = details.cached_tokens
