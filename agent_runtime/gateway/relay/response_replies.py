"""Reads the replies of ``/v1/responses`` as they pass.

A stream ends with the whole response, so nothing has to be put together: only the events that have
one are parsed, and deltas are counted by their names.
"""

from __future__ import annotations

import re
from typing import Any

from typing_extensions import override

from agent_runtime.engine_call import ReplyFacts
from agent_runtime.gateway.relay.passing_events import SEPARATOR, PassedEvents, WholeAnswer
from agent_runtime.gateway.relay.response_prompts import chat_messages
from agent_runtime.loose_json import a_count, an_object, objects

ENDS = frozenset({"completed", "incomplete", "failed", "cancelled"})

# A line of data holds no line feed, so no text of a reply looks like these.
_SPEAKS_OF_MORE = re.compile(
    rb"^event: ?(?:response\.(?:created|queued|completed|incomplete|failed|cancelled)|error)",
    re.MULTILINE,
)
_DELTA = re.compile(rb"^event: ?response\.[a-z_.]+\.delta", re.MULTILINE)


class StreamedResponse(PassedEvents):
    """A response in server-sent events; all of them pass.

    Attributes:
        response: As its events last told it; None until the first one does.
        num_events: That have passed; the next one's sequence number.
    """

    def __init__(self) -> None:
        super().__init__(_DELTA, _SPEAKS_OF_MORE)
        self.response: dict[str, Any] | None = None
        self.num_events = 0

    @property
    def num_output_tokens(self) -> int:
        """Output tokens so far: one a delta, until the usage tells."""
        told = a_count(_usage(self.response).get("output_tokens"))
        return told if self._is_complete and told is not None else self._num_deltas

    def facts(self) -> ReplyFacts:
        """Return what is known."""
        return _facts(self.response, self.num_output_tokens)

    def message(self) -> dict[str, Any] | None:
        """Return what was said, once all is."""
        return _message(self.response)

    @override
    def _take(self, event: dict[str, Any]) -> None:
        kind, response = str(event.get("type")), event.get("response")
        if kind == "error":
            self._is_complete = True
        elif isinstance(response, dict):
            self.response = response
            self._is_complete = kind.removeprefix("response.") in ENDS

    @override
    def _passed(self, events: bytes) -> None:
        self.num_events += events.count(SEPARATOR)


class WholeResponse(WholeAnswer):
    """A response in one piece of JSON."""

    @property
    def response(self) -> dict[str, Any] | None:
        """It; None until all has come."""
        return self.answer

    @property
    def num_output_tokens(self) -> int:
        """Output tokens, known at the end."""
        return a_count(_usage(self.response).get("output_tokens")) or 0

    def facts(self) -> ReplyFacts:
        """Return what is known."""
        return _facts(self.response, self.num_output_tokens)

    def message(self) -> dict[str, Any] | None:
        """Return what was said."""
        return _message(self.response)


def output_of(response: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the items of a response's output."""
    return objects((response or {}).get("output"))


def _facts(response: dict[str, Any] | None, num_output_tokens: int) -> ReplyFacts:
    usage, status = _usage(response), (response or {}).get("status")
    details = an_object(usage.get("input_tokens_details"))
    calls = [item for item in output_of(response) if item.get("type") == "function_call"]
    return ReplyFacts(
        num_prompt_tokens=a_count(usage.get("input_tokens")),
        num_cached_tokens=a_count(details.get("cached_tokens")),
        num_output_tokens=num_output_tokens,
        finish_reason=status if isinstance(status, str) and status in ENDS else None,
        tool_names=[str(call.get("name")) for call in calls],
    )


def _message(response: dict[str, Any] | None) -> dict[str, Any] | None:
    messages = chat_messages(output_of(response))
    return messages[0] if len(messages) == 1 else None


def _usage(response: dict[str, Any] | None) -> dict[str, Any]:
    return an_object((response or {}).get("usage"))
