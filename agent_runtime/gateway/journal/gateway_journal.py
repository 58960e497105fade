"""What a gateway takes down, and finds again after a restart, or finds of other gateways.

What can't be written is tried again, and turns run without what can't be read; refused is only who
goes on with what is nowhere else. ``Records`` says so to whoever runs the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent_runtime.errors import JournalError, JournalUnreadableError
from agent_runtime.records import Records
from scheduler.ids import TenantId

PATIENCE_S = 2.0
"""So long an answer waits for a journal that fails: a Redis that restarts is back by then."""
CATCH_UP_S = 3.0
"""So long after it failed, others who share it may still write what came meanwhile."""


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
        """Return the values of groups; nothing of those that are not there.

        Raises:
            JournalUnreadableError: They can't be read now.
        """
        try:
            return await self.records.read(groups)
        except JournalError as error:  # counted there, and told
            raise JournalUnreadableError from error

    async def read_if_possible(self, groups: list[str]) -> list[dict[str, bytes]]:
        """Return the same, and nothing of those that can't be read."""
        try:
            return await self.read(groups)
        except JournalUnreadableError:
            return [{} for _ in groups]

    async def names(self, prefix: str) -> list[str]:
        """Return the groups whose names begin so.

        Raises:
            JournalUnreadableError: They can't be read now.
        """
        try:
            return await self.records.names(prefix)
        except JournalError as error:
            raise JournalUnreadableError from error

    async def look_up(self, group: str) -> dict[str, bytes]:
        """Return the values of a group; nothing where there certainly is no such group.

        Raises:
            JournalUnreadableError: It can't be read now; or it is not there and others may still
                have to write it, as the journal has just failed.
        """
        (values,) = await self.read([group])
        if not values and self.is_shared and self.records.works_s < CATCH_UP_S:
            raise JournalUnreadableError
        return values

    async def settled(self) -> None:
        """Return once what was taken down is durable, or has waited for long enough."""
        while True:
            try:
                await self.records.settled()
            except JournalError:
                if self.records.failing_s < PATIENCE_S:
                    continue  # it is tried again, and that waited for
            return


def group_of(kind: str, tenant_id: TenantId, name: str) -> str:
    """Return the name of a group; tenants have no slash in theirs."""
    return f"{kind}/{tenant_id}/{name}"
