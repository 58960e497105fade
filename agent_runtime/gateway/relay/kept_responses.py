"""Responses that can be gone on with: which engine has them, and what else is known of them.

vLLM keeps responses only with its store enabled, and each engine its own. A response goes on at the
engine that has it; where that is gone, or keeps none, the conversation is sent whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from msgspec.structs import replace
from typing_extensions import override

from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet, SlotState
from agent_runtime.engine_call import ReplyReader
from agent_runtime.errors import UnknownResponseError
from agent_runtime.gateway.journal.response_journal import RecalledResponse
from agent_runtime.gateway.relay.relayed_api import Fields
from agent_runtime.gateway.relay.relayed_call import RelayedCall
from agent_runtime.gateway.relay.response_prompts import input_items
from agent_runtime.gateway.relay.response_replies import (
    ENDS,
    StreamedResponse,
    WholeResponse,
    output_of,
)
from agent_runtime.gateway.relay.responses_api import failed, response_event
from agent_runtime.gateway.response_store import ResponseStore, StoredResponse
from agent_runtime.gateway.session_directory import ChatSession
from agent_runtime.occurrence import Occurrence
from scheduler.events import NO_TENANT
from scheduler.ids import ReplicaId, TenantId

ASK_AGAIN_S = 60.0
"""An engine that did not know a response is taken to keep none for so long."""
MAX_ID_LENGTH = 256
MAX_DELETED = 10_000
"""Ids that are remembered as deleted."""


@dataclass(slots=True, kw_only=True)
class RelayedResponse(StoredResponse):
    """One response of an engine.

    Attributes:
        replica_id: Whose; None where the engine that had it is not there any more.
        items: The conversation up to it, and once it has ended with it.
        engine_url: Where that engine is.
    """

    replica_id: ReplicaId | None
    items: Sequence[dict[str, Any]]
    engine_url: str | None = None

    @property
    @override
    def parts(self) -> Sequence[dict[str, Any]]:
        """The items."""
        return self.items

    @property
    @override
    def engine(self) -> str | None:
        """Its engine's URL."""
        return self.engine_url

    @property
    def has_ended(self) -> bool:
        """Whether its output is known."""
        return self.body.get("status") in ENDS


def relayed_response(recalled: RecalledResponse, fleet: EngineFleet) -> RelayedResponse:
    """Return a response of another life."""
    url = recalled.engine
    at = [slot.replica_id for slot in fleet.slots if slot.address and slot.address.url == url]
    return RelayedResponse(
        response_id=recalled.response_id,
        tenant_id=recalled.tenant_id,
        session_id=recalled.session_id,
        messages=(),
        num_bytes=recalled.num_bytes,
        body=recalled.body,
        base_id=recalled.base_id,
        num_base=recalled.num_base,
        root_id=recalled.root_id,
        replica_id=at[0] if at else None,
        items=recalled.parts,
        engine_url=url,
    )


class KeptResponses:
    """What was kept.

    Args:
        store: Where.
        fleet: The engines.
    """

    def __init__(self, store: ResponseStore[RelayedResponse], fleet: EngineFleet) -> None:
        self._store, self._fleet = store, fleet
        self._deleted: OrderedDict[str, None] = OrderedDict()  # here; vLLM itself deletes none
        self._keeps_none_until_s: dict[ReplicaId, float] = {}

    async def previous(self, fields: Fields, tenant_id: TenantId) -> RelayedResponse | None:
        """Return the response that a request goes on with, None where it is not known here.

        Raises:
            UnknownResponseError: As of ``find``.
            JournalUnreadableError: As of ``find``.
        """
        response_id = fields.get("previous_response_id")
        if not isinstance(response_id, str):
            return None
        return await self.find(tenant_id, response_id)

    async def find(self, tenant_id: TenantId, response_id: str) -> RelayedResponse | None:
        """Return a response, None where it is not known here and an engine may have it.

        Raises:
            UnknownResponseError: It was deleted, may be another tenant's, or can be no id.
            JournalUnreadableError: It may be in the journal, which can't be read now.
        """
        await self._store.recall(tenant_id, response_id)
        found = self._store.find(tenant_id, response_id)
        if found is None and (
            tenant_id != NO_TENANT
            or response_id in self._deleted
            or not _may_be_one(response_id)
            or await self._store.was_deleted(tenant_id, response_id)
        ):
            raise UnknownResponseError(
                f"The response `{response_id}` does not exist, or was forgotten; send the whole "
                "conversation as input.",
                param="response_id",
            )
        return found

    async def delete(self, tenant_id: TenantId, response_id: str) -> None:
        """Forget a response, though its engine may have it for longer.

        Raises:
            UnknownResponseError: It was not known.
        """
        await self._store.recall(tenant_id, response_id)
        self._store.delete(tenant_id, response_id)
        await self._store.settled()
        self._deleted[response_id] = None
        while len(self._deleted) > MAX_DELETED:
            self._deleted.popitem(last=False)

    def resolved(self, call: RelayedCall, previous: RelayedResponse) -> RelayedCall:
        """Return a call that some engine understands: the one that has the response, or any."""
        standalone = base = None
        if previous.has_ended:
            base = previous
            items = [*previous.items, *input_items(call.fields.get("input"))]
            standalone = {**call.fields, "input": items}
            del standalone["previous_response_id"]
        resolved = replace(call, only=previous.replica_id, standalone=standalone, base=base)
        if not self._has_it(previous.replica_id):
            return resolved.elsewhere() or resolved
        return resolved

    def _has_it(self, replica_id: ReplicaId | None) -> bool:
        if replica_id is None or self._fleet.slots[replica_id].state is not SlotState.UP:
            return False
        return self._keeps_none_until_s.get(replica_id, 0.0) <= anyio.current_time()

    def not_found(self, replica_id: ReplicaId) -> None:
        """Take in that an engine did not know one of its responses."""
        self._keeps_none_until_s[replica_id] = anyio.current_time() + ASK_AGAIN_S

    def keeping(self, call: RelayedCall, session: ChatSession) -> Keeping:
        """Return what keeps the answer to a call."""
        return Keeping(self._store, self._fleet, call, session)


class Keeping:
    """Keeps one response, from when its id is known.

    Attributes:
        cancelled: Set when it is to end.
    """

    __slots__ = ("_call", "_fleet", "_has_ended", "_kept", "_session", "_store", "cancelled")

    def __init__(
        self,
        store: ResponseStore[RelayedResponse],
        fleet: EngineFleet,
        call: RelayedCall,
        session: ChatSession,
    ) -> None:
        self._store, self._fleet, self._call, self._session = store, fleet, call, session
        self._has_ended = False
        self._kept: RelayedResponse | None = None
        self.cancelled = Occurrence()

    def progressed(self, reader: ReplyReader, replica_id: ReplicaId) -> None:
        """Take in what a reply has told."""
        response = _response(reader)
        if response is None:
            return
        if self._kept is None:
            self._kept = self._begun(response, replica_id)
            self._store.keep(self._kept)
        if reader.is_complete:
            self._kept.items = [*self._kept.items, *output_of(response)]
            self._end(self._kept, {"output": [], **response})

    async def settled(self) -> None:
        """Return once a response that ended outlives the process, if it is to."""
        if self._has_ended:
            await self._store.settled()

    def _end(self, kept: RelayedResponse, body: dict[str, Any]) -> None:
        self._has_ended = True
        self._store.ended(kept, body)

    def failed(self, message: str) -> None:
        """Take in that it broke off."""
        if self._kept is not None and not self._kept.has_ended:
            self._end(self._kept, failed(self._kept.body, message))

    def cut_short(self) -> dict[str, Any]:
        """Return the response, cancelled."""
        if self._kept is None:
            return {"status": "cancelled"}
        body = {**self._kept.body, "status": "cancelled"}
        self._end(self._kept, body)
        return body

    def cut_short_events(self, reader: ReplyReader) -> bytes:
        """Return the event that ends a stream that was cancelled."""
        number = reader.num_events if isinstance(reader, StreamedResponse) else 0
        return response_event("response.incomplete", number, response=self.cut_short())

    def _begun(self, response: dict[str, Any], replica_id: ReplicaId) -> RelayedResponse:
        call = self._call
        fields = call.fields if call.standalone is None else call.standalone
        address = self._fleet.slots[replica_id].address
        begun = RelayedResponse(
            response_id=str(response.get("id")),
            tenant_id=call.keys.tenant_id,
            session_id=self._session.public_id,
            messages=(),
            num_bytes=len(call.body) + 1024,
            body={"output": [], **response},
            cancelled=self.cancelled,
            replica_id=replica_id,
            items=input_items(fields.get("input")),
            engine_url=None if address is None else address.url,
        )
        begun.goes_on_with(call.base)
        return begun


def _may_be_one(response_id: str) -> bool:
    """Return whether an engine may be asked for it: in a path it must mean no other place."""
    return 0 < len(response_id) <= MAX_ID_LENGTH and response_id not in {".", ".."}


def _response(reader: ReplyReader) -> dict[str, Any] | None:
    return reader.response if isinstance(reader, StreamedResponse | WholeResponse) else None
