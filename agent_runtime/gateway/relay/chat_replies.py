"""Reads the replies of ``/v1/chat/completions`` and ``/v1/completions`` as they pass.

Of a streamed reply only the chunks that say something beside text are parsed on the way: the first,
the last, and the one with the usage. All others are counted, by their separators; what they said is
put together only when somebody wants to know it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from agent_runtime.engine_call import ReplyFacts
from agent_runtime.gateway.relay.passing_events import (
    SEPARATOR,
    Unheard,
    WholeAnswer,
    WholeEvents,
    data_of,
    each,
    parsed,
)
from agent_runtime.loose_json import a_count, a_text, an_object, objects
from agent_runtime.spoken_message import SpokenMessage

DONE = b"[DONE]"

_SPEAKS_OF_MORE = re.compile(
    rb'"role": ?"assistant"|"finish_reason": ?"|"usage": ?\{|"error": ?\{|\[DONE\]'
)
# Inside of a JSON string a quote has a backslash before it, so no text of a reply looks like these.

_SENT_BACK = frozenset({"role", "content", "tool_calls"})


@dataclass(frozen=True, slots=True)
class ReplyBefore:
    """The beginning of a reply, that another engine gave.

    Attributes:
        said: Its words.
        num_tokens: How many tokens they were.
        head: What its chunks began with: id and time.
    """

    said: SpokenMessage
    num_tokens: int
    head: bytes


class StreamedReply:
    """A reply in server-sent events.

    Args:
        wants_usage: Whether the client asked for the chunk with the usage; else it is left out.
        before: The reply that this one goes on with, to the client's eyes.

    Invariant: ``_unheard`` are events passed on whose text is not in ``_said`` yet.
    """

    def __init__(self, *, wants_usage: bool, before: ReplyBefore | None = None) -> None:
        self._wants_usage = wants_usage
        self._cutter = WholeEvents()
        self._unheard = Unheard()
        self._said = SpokenMessage() if before is None else before.said
        self._said_more = False  # than a message that is sent back has
        self._num_tokens_before = 0 if before is None else before.num_tokens
        self._num_tokens = self._num_tokens_before
        self._head_before = None if before is None else before.head
        self._usage: dict[str, Any] = {}
        self._finish_reason: str | None = None
        self._head = b""  # what every chunk begins with, id and time
        self._is_complete = False

    @property
    def num_output_tokens(self) -> int:
        """Output tokens so far: one a chunk, until the usage tells."""
        return self._num_tokens

    @property
    def is_complete(self) -> bool:
        """Whether ``[DONE]`` has come."""
        return self._is_complete

    def feed(self, data: bytes) -> bytes:
        """Take in bytes; return the events that they complete.

        Raises:
            WireFormatError: An event of more than 64 MiB.
        """
        events = self._cutter.take(data)
        if not events:
            return b""
        if not self._head or _SPEAKS_OF_MORE.search(events) is not None:
            return self._read(events)
        self._num_tokens += events.count(SEPARATOR)
        return self._passed(events)

    def end(self) -> bytes:
        """Take in that the engine closed the reply; half an event is not passed on."""
        return b""

    def facts(self) -> ReplyFacts:
        """Return what is known."""
        details = an_object(self._usage.get("prompt_tokens_details"))
        calls = self._heard().message().get("tool_calls", ()) if self._finish_reason else ()
        return ReplyFacts(
            num_prompt_tokens=a_count(self._usage.get("prompt_tokens")),
            num_cached_tokens=a_count(details.get("cached_tokens")),
            num_output_tokens=self._num_tokens,
            finish_reason=self._finish_reason,
            tool_names=[call["function"]["name"] for call in calls],
        )

    def message(self) -> dict[str, Any] | None:
        """Return what was said so far."""
        return self._heard().message()

    def text_to_go_on_with(self) -> str | None:
        """Return all that was said, or None if another engine can't be given that as its own."""
        message = self._heard().message()
        if self._said_more or message.get("tool_calls") or self._finish_reason is not None:
            return None
        return str(message["content"])

    def continuation(self) -> StreamedReply:
        """Return a reader for the reply of another engine that goes on where this one stopped.

        To the client both are one reply: with one id, one beginning and one usage.
        """
        head = self._head if self._head_before is None else self._head_before
        before = ReplyBefore(self._heard(), self._num_tokens, head)
        return StreamedReply(wants_usage=self._wants_usage, before=before)

    def _read(self, events: bytes) -> bytes:
        """Look at every event; return those to pass on."""
        seen = [event + SEPARATOR for event in each(events) if self._take(event)]
        return self._passed(b"".join(seen))

    def _take(self, event: bytes) -> bool:
        """Take in one event; return whether the client is to see it."""
        data = data_of(event)
        if data == DONE:
            self._is_complete = True
            return True
        chunk = parsed(data)
        if chunk is None or "error" in chunk:
            return True
        choices = objects(chunk.get("choices"))
        if not self._head and choices:
            self._head = event[: event.find(b'"choices"')]
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._take_usage(usage)
        if not choices:
            return self._wants_usage or not isinstance(usage, dict)
        says = self._take_choices(choices)
        return says or self._head_before is None

    def _take_choices(self, choices: list[dict[str, Any]]) -> bool:
        """Count what choices say; return whether they say anything."""
        says = False
        for choice in choices:
            spoken = choice.get("delta")
            text = spoken if isinstance(spoken, dict) else {"text": choice.get("text")}
            speaks = any(value for name, value in text.items() if name != "role")
            self._num_tokens += speaks and not self._usage
            reason = a_text(choice.get("finish_reason"))
            if reason and not choice.get("index"):
                self._finish_reason = reason
            says = says or speaks or bool(reason)
        return says

    def _take_usage(self, usage: dict[str, Any]) -> None:
        self._usage = usage
        told, prompt = a_count(usage.get("completion_tokens")), a_count(usage.get("prompt_tokens"))
        if told is not None:
            self._num_tokens = told + self._num_tokens_before
        if self._num_tokens_before and prompt is not None:
            # What the engine before generated was part of this one's prompt.
            usage["prompt_tokens"] = max(1, prompt - self._num_tokens_before)

    def _passed(self, events: bytes) -> bytes:
        if self._head_before is not None:
            events = self._as_before(events)
        if self._unheard.add(events):
            self._heard()
        return events

    def _as_before(self, events: bytes) -> bytes:
        """Return events with the id and time of the reply that they go on with."""
        if self._head_before and self._head:
            events = events.replace(self._head, self._head_before)
        if self._num_tokens_before and b'"usage":' in events and self._usage:
            events = self._with_whole_usage(events)
        return events

    def _with_whole_usage(self, events: bytes) -> bytes:
        whole = []
        for event in each(events):
            chunk = parsed(data_of(event))
            if chunk is not None and isinstance(chunk.get("usage"), dict):
                usage = {**self._usage, "completion_tokens": self._num_tokens}
                prompt = a_count(usage.get("prompt_tokens")) or 0
                usage["total_tokens"] = prompt + self._num_tokens
                event = b"data: " + msgspec.json.encode({**chunk, "usage": usage})  # noqa: PLW2901
            whole.append(event + SEPARATOR)
        return b"".join(whole)

    def _heard(self) -> SpokenMessage:
        """Put together what was said so far."""
        for chunk in self._unheard.taken_out():
            self._hear(chunk)
        return self._said

    def _hear(self, chunk: dict[str, Any]) -> None:
        first = [choice for choice in objects(chunk.get("choices")) if not choice.get("index")]
        for choice in first:
            if "delta" not in choice and isinstance(choice.get("text"), str):
                choice["delta"] = {"content": choice["text"]}
            delta = an_object(choice.get("delta"))
            if any(value for name, value in delta.items() if name not in _SENT_BACK):
                self._said_more = True
        self._said.hear({"choices": first})


class WholeReply(WholeAnswer):
    """A reply in one piece of JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._facts: ReplyFacts | None = None  # once they are all known

    @property
    def num_output_tokens(self) -> int:
        """Output tokens, known at the end."""
        return 0 if self.answer is None else self.facts().num_output_tokens

    def facts(self) -> ReplyFacts:
        """Return what is known."""
        facts = self._facts
        if facts is None:
            facts = self._read_facts()
            if self.answer is not None:
                self._facts = facts
        return facts

    def _read_facts(self) -> ReplyFacts:
        usage = self._usage()
        details = an_object(usage.get("prompt_tokens_details"))
        choice = self._choice()
        calls = objects(an_object(choice.get("message")).get("tool_calls"))
        return ReplyFacts(
            num_prompt_tokens=a_count(usage.get("prompt_tokens")),
            num_cached_tokens=a_count(details.get("cached_tokens")),
            num_output_tokens=a_count(usage.get("completion_tokens")) or 0,
            finish_reason=a_text(choice.get("finish_reason")),
            tool_names=[str(an_object(call.get("function")).get("name")) for call in calls],
        )

    def message(self) -> dict[str, Any] | None:
        """Return what was said."""
        choice = self._choice()
        if "text" in choice:
            return {"role": "assistant", "content": choice["text"]}
        message = choice.get("message")
        return message if isinstance(message, dict) else None

    def _usage(self) -> dict[str, Any]:
        return an_object((self.answer or {}).get("usage"))

    def _choice(self) -> dict[str, Any]:
        choices = objects((self.answer or {}).get("choices"))
        return choices[0] if choices else {}
