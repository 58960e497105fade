"""Answers of the responses API that are kept, to be read, gone on with or cancelled.

Invariant: they stand in the order in which they began; ``_num_bytes`` is the sum of their sizes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import anyio

from agent_runtime.errors import InvalidRequestError, UnknownResponseError
from agent_runtime.gateway.cancellation import Cancellation
from scheduler.ids import TenantId


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much is kept.

    Attributes:
        max_responses: The oldest ones beyond are forgotten.
        max_bytes: So are they beyond this many bytes of requests.
        ttl_s: And after this long.
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
    cancelled: Cancellation | None = None
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
        self._num_bytes = 0
        self._kept: OrderedDict[str, KeptT] = OrderedDict()
        self._items: dict[str, tuple[TenantId, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def new_suffix(self) -> str:
        """Return what ids of a new answer and its items end with."""
        self._num_made += 1
        return f"{self._era}{self._num_made:08x}"

    def keep(self, response: KeptT) -> None:
        """Keep an answer that begins."""
        self._kept[response.response_id] = response
        self._num_bytes += response.num_bytes
        self._forget_old()

    def ended(self, response: KeptT, body: dict[str, Any]) -> None:
        """Take its last state, if it is still kept."""
        response.body, response.cancelled = body, None
        if self._kept.get(response.response_id) is response:
            self._keep_items(response)
            if self._journal is not None:
                self._journal.ended(response)

    async def settled(self) -> None:
        """Return once the answers that ended outlive the process, if they are to."""
        if self._journal is not None:
            await self._journal.settled()

    async def recall(self, tenant_id: TenantId, response_id: str) -> None:
        """Have an answer of another life, or of another gateway's, known here."""
        if self._journal is None or self.find(tenant_id, response_id) is not None:
            return
        response = await self._journal.response(tenant_id, response_id)
        if response is not None and response_id not in self._kept:
            self.keep(response)
            self._keep_items(response)

    async def recall_item(self, tenant_id: TenantId, item_id: str) -> None:
        """Have an item of an answer known here. As ``recall``."""
        if self._journal is not None and item_id not in self._items:
            response_id = await self._journal.response_of_item(tenant_id, item_id)
            if response_id is not None:
                await self.recall(tenant_id, response_id)

    async def was_deleted(self, tenant_id: TenantId, response_id: str) -> bool:
        """Return whether there was an answer of this id in another life, and was deleted."""
        return self._journal is not None and await self._journal.was_deleted(tenant_id, response_id)

    def find(self, tenant_id: TenantId, response_id: str) -> KeptT | None:
        """Return an answer, None where that tenant has none of this id."""
        self._forget_old()
        response = self._kept.get(response_id)
        return response if response is not None and response.tenant_id == tenant_id else None

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
        owner, item = self._items.get(item_id, (None, {}))
        if owner != tenant_id:
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
        if self._kept.get(response.response_id) is response:
            self._forget(response)

    def _keep_items(self, response: KeptT) -> None:
        for item in response.body["output"]:
            if "id" in item:
                self._items[item["id"]] = response.tenant_id, item

    def _forget_old(self) -> None:
        limits, now_s = self._limits, anyio.current_time()
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if (
                len(self._kept) <= limits.max_responses
                and self._num_bytes <= limits.max_bytes
                and now_s - oldest.began_s <= limits.ttl_s
            ):
                break
            self._forget(oldest)

    def _forget(self, response: KeptT) -> None:
        del self._kept[response.response_id]
        self._num_bytes -= response.num_bytes
        for item in response.body["output"]:
            self._items.pop(item.get("id"), None)
