"""Takes down answers that were kept, and gives them back.

A conversation is a group with a value for each answer: what was added to the answer that it goes on
with, so a turn costs what it adds. An answer's name leads to its conversation, an item's to its
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from agent_runtime.gateway.journal.gateway_journal import GatewayJournal, group_of
from agent_runtime.gateway.response_store import StoredResponse
from scheduler.ids import TenantId

RESPONSE, CONVERSATION, ITEM = "response", "conversation", "item"
ROOT, DELETED, OF = "root", "deleted", "of"

KeptT = TypeVar("KeptT", bound=StoredResponse)


class _Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer in its conversation.

    Attributes:
        base_id: The answer that it goes on with.
        added: What the conversation has beyond that one's, the answer included.
        body: As it is read.
        session_id: Of the session that it is a turn of.
        engine: Where it may be asked for.
    """

    base_id: str | None
    added: list[Any]
    body: dict[str, Any]
    session_id: str
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class RecalledResponse:
    """An answer as it was taken down.

    Attributes:
        parts: The conversation up to it, and with it.
        num_base: How many of them were the one's before.
        num_bytes: What it takes, about.
    """

    response_id: str
    tenant_id: TenantId
    session_id: str
    parts: list[Any]
    body: dict[str, Any]
    base_id: str | None
    num_base: int
    root_id: str
    num_bytes: int
    engine: str | None


def stored_response(recalled: RecalledResponse) -> StoredResponse:
    """Return an answer of another life, of the emulated model's."""
    return StoredResponse(
        response_id=recalled.response_id,
        tenant_id=recalled.tenant_id,
        session_id=recalled.session_id,
        messages=recalled.parts,
        num_bytes=recalled.num_bytes,
        body=recalled.body,
        base_id=recalled.base_id,
        num_base=recalled.num_base,
        root_id=recalled.root_id,
    )


class ResponseJournal(Generic[KeptT]):
    """See the module.

    Args:
        journal: Takes them down.
        made_of: Returns what was kept as the gateway keeps it.
        ttl_s: For how long after its latest answer a conversation is kept.
    """

    def __init__(
        self,
        journal: GatewayJournal,
        made_of: Callable[[RecalledResponse], KeptT],
        ttl_s: float,
    ) -> None:
        self._journal, self._made_of, self._ttl_s = journal, made_of, ttl_s

    @property
    def era(self) -> str:
        """What tells ids made in this life from those of any other."""
        return self._journal.era

    def ended(self, response: KeptT) -> None:
        """Take down an answer that came to its end."""
        tenant_id, records = response.tenant_id, self._journal.records
        node = _Node(
            response.base_id,
            list(response.parts[response.num_base :]),
            response.body,
            response.session_id,
            response.engine,
        )
        conversation = group_of(CONVERSATION, tenant_id, response.root_id)
        records.put(conversation, {response.response_id: msgspec.json.encode(node)}, self._ttl_s)
        place = {ROOT: response.root_id.encode()}
        records.put(group_of(RESPONSE, tenant_id, response.response_id), place, self._ttl_s)
        of = {OF: response.response_id.encode()}
        for item in response.body["output"]:
            if "id" in item:
                records.put(group_of(ITEM, tenant_id, item["id"]), of, self._ttl_s)

    def deleted(self, tenant_id: TenantId, response_id: str) -> None:
        """Take down that an answer was deleted; those that go on with it have it in them."""
        group = group_of(RESPONSE, tenant_id, response_id)
        self._journal.records.drop(group)
        self._journal.records.put(group, {DELETED: b"1"}, self._ttl_s)

    async def settled(self) -> None:
        """Return once what was taken down is durable, or has waited for long enough."""
        await self._journal.settled()

    async def response(self, tenant_id: TenantId, response_id: str) -> KeptT | None:
        """Return an answer; None where none of this id was taken down, or it was deleted.

        Raises:
            JournalUnreadableError: It can't be said now.
        """
        place = await self._journal.look_up(group_of(RESPONSE, tenant_id, response_id))
        if ROOT not in place:
            return None
        root_id = place[ROOT].decode()
        (values,) = await self._journal.read([group_of(CONVERSATION, tenant_id, root_id)])
        return self._recalled(tenant_id, response_id, root_id, values)

    async def was_deleted(self, tenant_id: TenantId, response_id: str) -> bool:
        """Return whether there was an answer of this id, and was deleted.

        Raises:
            JournalUnreadableError: It can't be said now.
        """
        place = await self._journal.look_up(group_of(RESPONSE, tenant_id, response_id))
        return DELETED in place

    async def response_of_item(self, tenant_id: TenantId, item_id: str) -> str | None:
        """Return the id of the answer that an item is of.

        Raises:
            JournalUnreadableError: It can't be said now.
        """
        place = await self._journal.look_up(group_of(ITEM, tenant_id, item_id))
        return place[OF].decode() if OF in place else None

    def _recalled(
        self, tenant_id: TenantId, response_id: str, root_id: str, values: Mapping[str, bytes]
    ) -> KeptT | None:
        nodes: list[_Node] = []
        name: str | None = response_id
        num_bytes = 1024
        while name is not None:
            if name not in values:
                return None
            num_bytes += len(values[name])
            nodes.append(msgspec.json.decode(values[name], type=_Node))
            name = nodes[-1].base_id
        last = nodes[0]
        parts = [part for node in reversed(nodes) for part in node.added]
        return self._made_of(
            RecalledResponse(
                response_id,
                tenant_id,
                last.session_id,
                parts,
                last.body,
                last.base_id,
                len(parts) - len(last.added),
                root_id,
                num_bytes,
                last.engine,
            )
        )
