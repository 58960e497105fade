"""Answers of the responses API that are kept, to be read, gone on with or cancelled.

Invariant: a tenant's stand in the order in which they began, and ``num_bytes`` is the sum of their
sizes; no tenant is kept that has none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import anyio

from agent_runtime.errors import InvalidRequestError, UnknownResponseError
from agent_runtime.loose_json import a_text, objects
from agent_runtime.occurrence import Occurrence
from scheduler.ids import TenantId


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much is kept.

    Attributes:
        max_responses: Beyond, the oldest ones of the tenant that has most are forgotten.
        max_bytes: So are they beyond this many bytes of requests.
        ttl_s: After this long everybody's are.
    """

    max_responses: int = 4_000
    max_bytes: int = 256 << 20
    ttl_s: float = 3600.0


@dataclass(slots=True)
class StoredResponse:
    """One answer, from its beginning.

    Attributes:
        response_id: Of it.
        tenant_id: Whose.
        session_id: The public id of the session that it is a turn of.
        messages: The conversation up to it, without instructions.
        num_bytes: What it takes, about.
        body: As it is read, so far.
        cancelled: Set to end it; None once it has ended.
        base_id: The answer that it goes on with.
        num_base: How many of ``parts`` were that one's.
        root_id: The first answer of its conversation, itself if it goes on with none.
        began_s: When, on anyio's clock.
    """

    response_id: str
    tenant_id: TenantId
    session_id: str
    messages: Sequence[dict[str, Any]]
    num_bytes: int
    body: dict[str, Any]
    cancelled: Occurrence | None = None
    base_id: str | None = None
    num_base: int = 0
    root_id: str = ""
    began_s: float = field(default_factory=anyio.current_time)

    def __post_init__(self) -> None:
        self.root_id = self.root_id or self.response_id

    @property
    def parts(self) -> Sequence[dict[str, Any]]:
        """What the conversation is made of, up to the answer and with it."""
        return self.messages

    @property
    def engine(self) -> str | None:
        """Where it may be asked for beside here."""
        return None

    def goes_on_with(self, base: StoredResponse | None) -> None:
        """Note the answer before it, whose parts its own begin with."""
        if base is not None:
            self.base_id, self.root_id = base.response_id, base.root_id
            self.num_base = len(base.parts)


KeptT = TypeVar("KeptT", bound=StoredResponse)


class _Own(Generic[KeptT]):
    """What is kept of one tenant's: answers by id, their size, and items of their outputs by id.

    Ids are of one tenant, since engines may let their callers choose them.
    """

    __slots__ = ("items", "kept", "num_bytes")

    def __init__(self) -> None:
        self.kept: OrderedDict[str, KeptT] = OrderedDict()
        self.num_bytes = 0
        self.items: dict[str, dict[str, Any]] = {}


class ResponsesTakenDown(Protocol[KeptT]):
    """Answers that outlive the process."""

    @property
    def era(self) -> str:
        """What tells ids made in this life from those of any other."""
        ...

    def ended(self, response: KeptT) -> None:
        """Take down an answer that came to its end."""
        ...

    def deleted(self, tenant_id: TenantId, response_id: str) -> None:
        """Take down that an answer was deleted."""
        ...

    async def settled(self) -> None:
        """Return once what was taken down is durable, or can't be made so for now."""
        ...

    async def response(self, tenant_id: TenantId, response_id: str) -> KeptT | None:
        """Return an answer; None where none of this id was taken down, or it was deleted."""
        ...

    async def was_deleted(self, tenant_id: TenantId, response_id: str) -> bool:
        """Return whether there was an answer of this id, and was deleted."""
        ...

    async def response_of_item(self, tenant_id: TenantId, item_id: str) -> str | None:
        """Return the id of the answer that an item is of."""
        ...


class ResponseStore(Generic[KeptT]):
    """Kept answers, bounded in number, size and age.

    Args:
        limits: How much.
        epoch_s: Seconds since 1970: ids differ from those before a restart.
        journal: Those that outlive the process; None where none do.
    """

    def __init__(
        self,
        limits: StoreLimits,
        epoch_s: Callable[[], float],
        journal: ResponsesTakenDown[KeptT] | None = None,
    ) -> None:
        self._limits, self._journal = limits, journal
        self._era = f"{int(epoch_s() * 1000):012x}{'' if journal is None else journal.era}"
        self._num_made = 0
        self._own: dict[TenantId, _Own[KeptT]] = {}

    def __len__(self) -> int:
        return sum(len(own.kept) for own in self._own.values())

    def new_suffix(self) -> str:
        """Return what ids of a new answer and its items end with."""
        self._num_made += 1
        return f"{self._era}{self._num_made:08x}"

    def keep(self, response: KeptT) -> None:
        """Keep an answer that begins."""
        own = self._own.get(response.tenant_id, _Own())
        replaced = own.kept.get(response.response_id)
        if replaced is not None:
            self._forget(replaced)
        self._own[response.tenant_id] = own
        own.kept[response.response_id] = response
        own.num_bytes += response.num_bytes
        self._forget_old()

    def ended(self, response: KeptT, body: dict[str, Any]) -> None:
        """Take its last state, if it is still kept."""
        response.body, response.cancelled = body, None
        own = self._own.get(response.tenant_id)
        if own is not None and own.kept.get(response.response_id) is response:
            own.items.update(_items_by_id(body))
            if self._journal is not None:
                self._journal.ended(response)

    async def settled(self) -> None:
        """Return once the answers that ended outlive the process, if they are to."""
        if self._journal is not None:
            await self._journal.settled()

    async def recall(self, tenant_id: TenantId, response_id: str) -> None:
        """Have an answer of another life, or of another gateway's, known here.

        Raises:
            JournalUnreadableError: It may be in the journal, which can't be read now.
        """
        if self._journal is None or self.find(tenant_id, response_id) is not None:
            return
        response = await self._journal.response(tenant_id, response_id)
        if response is not None and self.find(tenant_id, response_id) is None:
            self.keep(response)
            if self.find(tenant_id, response_id) is response:
                self._own[tenant_id].items.update(_items_by_id(response.body))

    async def recall_item(self, tenant_id: TenantId, item_id: str) -> None:
        """Have an item of an answer known here. As ``recall``."""
        own = self._own.get(tenant_id)
        if self._journal is not None and (own is None or item_id not in own.items):
            response_id = await self._journal.response_of_item(tenant_id, item_id)
            if response_id is not None:
                await self.recall(tenant_id, response_id)

    async def was_deleted(self, tenant_id: TenantId, response_id: str) -> bool:
        """Return whether there was an answer of this id in another life, and was deleted.

        Raises:
            JournalUnreadableError: As of ``recall``.
        """
        return self._journal is not None and await self._journal.was_deleted(tenant_id, response_id)

    def find(self, tenant_id: TenantId, response_id: str) -> KeptT | None:
        """Return an answer, None where that tenant has none of this id."""
        self._forget_old()
        own = self._own.get(tenant_id)
        return None if own is None else own.kept.get(response_id)

    def get(self, tenant_id: TenantId, response_id: str) -> KeptT:
        """Return an answer.

        Raises:
            UnknownResponseError: None of that tenant's.
        """
        response = self.find(tenant_id, response_id)
        if response is None:
            raise UnknownResponseError(
                f"The response `{response_id}` does not exist, or was not stored, or was "
                "forgotten; send the whole conversation as input.",
                param="response_id",
            )
        return response

    def item(self, tenant_id: TenantId, item_id: str) -> dict[str, Any]:
        """Return an item of an answer's output.

        Raises:
            InvalidRequestError: None of that tenant's.
        """
        own = self._own.get(tenant_id)
        item = None if own is None else own.items.get(item_id)
        if item is None:
            raise InvalidRequestError(
                f"input: the item `{item_id}` was not stored, or was forgotten; send it whole",
                param="input",
            )
        return item

    def delete(self, tenant_id: TenantId, response_id: str) -> None:
        """Forget an answer.

        Raises:
            UnknownResponseError: None of that tenant's.
        """
        self._forget(self.get(tenant_id, response_id))
        if self._journal is not None:
            self._journal.deleted(tenant_id, response_id)

    def discard(self, response: KeptT) -> None:
        """Forget an answer that nobody was told of."""
        own = self._own.get(response.tenant_id)
        if own is not None and own.kept.get(response.response_id) is response:
            self._forget(response)

    def _forget_old(self) -> None:
        if not self._own:
            return
        limits, oldest_s = self._limits, anyio.current_time() - self._limits.ttl_s
        for own in list(self._own.values()):
            while own.kept and (oldest := _oldest(own)).began_s < oldest_s:
                self._forget(oldest)
        while len(self) > limits.max_responses:
            self._forget(_oldest(max(self._own.values(), key=lambda own: len(own.kept))))
        while sum(own.num_bytes for own in self._own.values()) > limits.max_bytes:
            self._forget(_oldest(max(self._own.values(), key=lambda own: own.num_bytes)))

    def _forget(self, response: KeptT) -> None:
        own = self._own[response.tenant_id]
        del own.kept[response.response_id]
        own.num_bytes -= response.num_bytes
        for item_id in _items_by_id(response.body):
            own.items.pop(item_id, None)
        if not own.kept:
            del self._own[response.tenant_id]


def _items_by_id(body: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = ((a_text(item.get("id")), item) for item in objects(body.get("output")))
    return {item_id: item for item_id, item in found if item_id is not None}


def _oldest(own: _Own[KeptT]) -> KeptT:
    return next(iter(own.kept.values()))
