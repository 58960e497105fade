"""The events of a streamed response, in OpenAI's order, with sequence numbers."""

from __future__ import annotations

from typing import Any

import msgspec

from agent_runtime.emulated_model.reply import Piece, PieceKind, Reply, ReplyReader
from agent_runtime.gateway.dialects.response_object import (
    call_id_of,
    call_item,
    content_logprobs,
    message_item,
    text_part,
)
from agent_runtime.turns import TurnProgress

_encode = msgspec.json.Encoder().encode


class ResponseEvents:
    """Writes one stream.

    Args:
        reply: What is said.
        suffix: Of its items' ids.
        num_top_logprobs: How many a token has, or None for none.
    """

    __slots__ = (
        "_index", "_item", "_num_events", "_num_sent", "_num_top", "_open", "_reader", "_reply",
        "_suffix", "_text",
    )  # fmt: skip

    def __init__(self, reply: Reply, suffix: str, num_top_logprobs: int | None) -> None:
        self._reply, self._suffix, self._num_top = reply, suffix, num_top_logprobs
        self._reader = ReplyReader(reply)
        self._num_events = self._num_sent = 0
        self._open: tuple[PieceKind, int] | None = None  # the open item: text, or which call
        self._index = -1  # of the open item among all
        self._item: dict[str, Any] = {}
        self._text: list[str] = []

    def opening(self, head: dict[str, Any]) -> bytes:
        """Return the first two events."""
        return self.event("response.created", response=head) + self.event(
            "response.in_progress", response=head
        )

    def step(self, step: TurnProgress) -> bytes:
        """Return the events that a step makes."""
        start = self._num_sent
        self._num_sent += step.num_new_tokens
        logprobs = content_logprobs(self._reply, start, self._num_sent, self._num_top)
        events = b""
        for piece in self._reader.take(step.num_new_tokens):
            events += self._piece(piece, logprobs)
        if step.finished and self._index < 0:
            events += self._open_message()
        return events

    def closing(self, output: list[dict[str, Any]], response: dict[str, Any]) -> bytes:
        """Return the events that end it.

        Args:
            output: The items as they are in the end.
            response: The same for the whole.
        """
        kind = "response.completed" if response["status"] == "completed" else "response.incomplete"
        return self._close_item(output) + self.event(kind, response=response)

    def event(self, kind: str, **fields: object) -> bytes:
        """Return an event with the next number."""
        body = {"type": kind, "sequence_number": self._num_events, **fields}
        self._num_events += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(body))

    def _piece(self, piece: Piece, logprobs: list[dict[str, Any]]) -> bytes:
        if piece.kind is PieceKind.CONTENT:
            events = b"" if self._open == (PieceKind.CONTENT, 0) else self._open_message()
            self._text.append(piece.text)
            place = self._place(content_index=0)
            return events + self.event(
                "response.output_text.delta", **place, delta=piece.text, logprobs=logprobs
            )
        events = b"" if self._open == (PieceKind.CALL, piece.call) else self._open_call(piece.call)
        if piece.kind is PieceKind.CALL:
            return events
        self._text.append(piece.text)
        return events + self.event(
            "response.function_call_arguments.delta", **self._place(), delta=piece.text
        )

    def _open_message(self) -> bytes:
        item = message_item(f"msg_{self._suffix}", [], "in_progress")
        events = self._open_item((PieceKind.CONTENT, 0), item)
        place = self._place(content_index=0)
        return events + self.event("response.content_part.added", **place, part=text_part("", []))

    def _open_call(self, index: int) -> bytes:
        call = self._reply.speech.calls[index]
        item = call_item(
            f"fc_{self._suffix}_{index}", call_id_of(call.call_id), call.name, "", "in_progress"
        )
        return self._open_item((PieceKind.CALL, index), item)

    def _open_item(self, key: tuple[PieceKind, int], item: dict[str, Any]) -> bytes:
        events = self._close_item(None)
        self._open, self._item, self._text = key, item, []
        self._index += 1
        return events + self.event(
            "response.output_item.added", output_index=self._index, item=item
        )

    def _close_item(self, output: list[dict[str, Any]] | None) -> bytes:
        """Return the events that end the open item, as it is in the end if that is known."""
        if self._open is None:
            return b""
        said, is_text = "".join(self._text), self._open[0] is PieceKind.CONTENT
        self._open = None
        if is_text:
            part = text_part(said, [])
            item = {**self._item, "content": [part], "status": "completed"}
        else:
            item = {**self._item, "arguments": said, "status": "completed"}
        if output is not None:
            item = output[self._index]
        if not is_text:
            done = self.event(
                "response.function_call_arguments.done",
                **self._place(),
                name=item["name"],
                arguments=said,
            )
        else:
            part, place = item["content"][0], self._place(content_index=0)
            done = self.event(
                "response.output_text.done", **place, text=said, logprobs=part["logprobs"]
            ) + self.event("response.content_part.done", **place, part=part)
        return done + self.event("response.output_item.done", output_index=self._index, item=item)

    def _place(self, **more: int) -> dict[str, Any]:
        return {"item_id": self._item["id"], "output_index": self._index, **more}
