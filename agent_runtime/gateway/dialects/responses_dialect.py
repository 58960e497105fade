"""``POST /v1/responses``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent_runtime.emulated_model.reply import Reply
from agent_runtime.errors import BackendError, RequestError
from agent_runtime.gateway.dialect import AnswerHead, DialectName, TurnUsage
from agent_runtime.gateway.dialects.response_events import ResponseEvents
from agent_runtime.gateway.dialects.response_object import (
    call_id_of,
    ended,
    output_items,
    response_head,
)
from agent_runtime.gateway.dialects.responses_reading import read_responses, referenced_items
from agent_runtime.gateway.dialects.responses_wire import ResponsesRequest
from agent_runtime.gateway.error_mapping import http_error
from agent_runtime.gateway.neutral_request import ChatPrompt, NeutralRequest
from agent_runtime.gateway.planned_turn import PlannedTurn
from agent_runtime.gateway.response_store import ResponseStore, StoredResponse
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.gateway.wire import parse_body
from agent_runtime.occurrence import Occurrence
from agent_runtime.turns import TurnProgress


@dataclass(frozen=True, slots=True)
class ResponsesDialect:
    """The dialect.

    Attributes:
        store: Keeps answers.
    """

    store: ResponseStore[StoredResponse]
    name: DialectName = DialectName.RESPONSES

    async def read(self, body: bytes, caller: Caller) -> tuple[ResponsesRequest, NeutralRequest]:
        """Read a body."""
        asked = parse_body(ResponsesRequest, body)
        if asked.previous_response_id is not None:
            await self.store.recall(caller.tenant_id, asked.previous_response_id)
        for item_id in referenced_items(asked):
            await self.store.recall_item(caller.tenant_id, item_id)
        return asked, read_responses(asked, caller, self.store)

    def form(self, request: ResponsesRequest, turn: PlannedTurn, head: AnswerHead) -> ResponsesForm:
        """Return what writes the answer."""
        return ResponsesForm(request, turn, head, self.store)


class ResponsesForm:
    """Writes one answer, and has it kept unless the caller says no.

    Args:
        request: As it was asked.
        turn: What is said.
        head: The rest.
        store: Keeps it.

    Attributes:
        cancelled: Set when the answer is to end.
    """

    __slots__ = (
        "_events", "_head", "_is_known", "_kept", "_num_top", "_reply", "_store", "_suffix",
        "cancelled",
    )  # fmt: skip

    def __init__(
        self,
        request: ResponsesRequest,
        turn: PlannedTurn,
        head: AnswerHead,
        store: ResponseStore[StoredResponse],
    ) -> None:
        self._store = store
        self._suffix = store.new_suffix()
        self._head = response_head(request, head, f"resp_{self._suffix}")
        self._reply = turn.choices[0].reply
        self._num_top = request.num_top_logprobs
        self._events = ResponseEvents(self._reply, self._suffix, self._num_top)
        self._is_known = False  # to the client, by its id
        self.cancelled = Occurrence()
        self._kept: StoredResponse | None = None
        if request.store is not False:
            self._kept = self._stored(request, turn)
            store.keep(self._kept)

    def whole(self, used: TurnUsage) -> dict[str, Any]:
        """Return the body of a finished answer."""
        output = output_items(self._reply, self._suffix, self._num_top)
        return self._end(ended(self._head, self._reply, output, used))

    def opening(self) -> bytes:
        """Return the first events."""
        self._is_known = True
        return self._events.opening(self._head)

    def step(self, number: int, step: TurnProgress) -> bytes:  # noqa: ARG002 - protocol
        """Return the events that a step makes."""
        return self._events.step(step)

    def closing(self, used: TurnUsage) -> bytes:
        """Return the events that end it."""
        response = self.whole(used)
        return self._events.closing(response["output"], response)

    def failure(self, error: RequestError | BackendError) -> bytes:
        """Return the event of a response that failed."""
        told = {"code": "server_error", "message": http_error(error).message}
        response = self._end({**self._head, "status": "failed", "error": told})
        if not self._is_known and self._kept is not None:
            self._store.discard(self._kept)
        return self._events.event("response.failed", response=response)

    def cut_short(self) -> dict[str, Any]:
        """Return the body of an answer that was cancelled."""
        return self._end({**self._head, "status": "cancelled"})

    def cut_short_events(self) -> bytes:
        """Return the event that ends such a stream."""
        return self._events.event("response.incomplete", response=self.cut_short())

    async def settled(self) -> None:
        """Return once an answer that ended outlives the process, if it is to."""
        if self._kept is not None:
            await self._store.settled()

    def _end(self, response: dict[str, Any]) -> dict[str, Any]:
        if self._kept is not None:
            self._store.ended(self._kept, response)
        return response

    def _stored(self, request: ResponsesRequest, turn: PlannedTurn) -> StoredResponse:
        (prompt,) = turn.request.prompts
        messages = list(prompt.messages) if isinstance(prompt, ChatPrompt) else []
        if request.instructions:
            del messages[0]  # they are not taken over by what goes on with it
        num_bytes = sum(len(str(message.get("content") or "")) for message in messages)
        stored = StoredResponse(
            response_id=self._head["id"],
            tenant_id=turn.request.keys.tenant_id,
            session_id=turn.session.public_id,
            messages=[*messages, _as_sent_back(self._reply)],
            num_bytes=num_bytes + 1024,
            body=self._head,
            cancelled=self.cancelled,
        )
        if request.previous_response_id is not None:
            tenant_id = stored.tenant_id
            stored.goes_on_with(self._store.find(tenant_id, request.previous_response_id))
        return stored


def _as_sent_back(reply: Reply) -> dict[str, Any]:
    """Return what is said as a message, its calls named as the caller knows them."""
    message = reply.message()
    for call in message.get("tool_calls", ()):
        call["id"] = call_id_of(call["id"])
    return message
