"""What a gateway takes down, and finds again after a restart, or finds of other gateways.

What can't be read counts as unknown, and what can't be written is tried again: nobody is refused
for it. ``Records`` says so to whoever runs the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent_runtime.errors import JournalError
from agent_runtime.records import Records
from scheduler.ids import TenantId


@dataclass(frozen=True, slots=True)
class GatewayJournal:
    """Groups of values by what they are of.

    Attributes:
        records: Keep them.
    """

    records: Records

    @property
    def is_shared(self) -> bool:
        """Whether other gateways write it too."""
        return self.records.is_shared

    @property
    def era(self) -> str:
        """What tells ids made in this life from those of any other."""
        return f"{self.records.life:x}"

    async def read(self, groups: list[str]) -> list[dict[str, bytes]]:
        """Return the values of groups; nothing of those that are not there, or can't be read."""
        try:
            return await self.records.read(groups)
        except JournalError:  # counted there, and told
            return [{} for _ in groups]

    async def names(self, prefix: str) -> list[str]:
        """Return the groups whose names begin so; none where they can't be read."""
        try:
            return await self.records.names(prefix)
        except JournalError:
            return []

    async def settled(self) -> None:
        """Return once what was taken down is durable, or can't be made so for now."""
        try:
            await self.records.settled()
        except JournalError:
            return


def group_of(kind: str, tenant_id: TenantId, name: str) -> str:
    """Return the name of a group; tenants have no slash in theirs."""
    return f"{kind}/{tenant_id}/{name}"
