"""Fairness between tenants, in KV token-seconds, idle residency included."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.errors import InvariantError
from scheduler.ids import TenantId

HALF_LIFE_S = 600.0
"""What a tenant held so long ago counts half."""


class _Usage:
    __slots__ = ("at_s", "block_s", "blocks")

    def __init__(self) -> None:
        self.blocks = 0
        self.block_s = 0.0
        self.at_s = 0.0


class TenantShares:
    """How much more than an equal share of the rack's KV each tenant has had of late.

    The unit is Justitia's (arXiv 2510.17015), KV held times the time it is held, with the time
    between turns counted too: that is where agents hold most.
    """

    __slots__ = ("_tenants",)

    def __init__(self) -> None:
        self._tenants: dict[TenantId, _Usage] = {}

    def change(self, tenant_id: TenantId, num_blocks: int, now_s: float) -> None:
        """Count blocks that a tenant holds from now on, or no longer where below zero."""
        if not num_blocks:
            return
        usage = self._tenants.get(tenant_id)
        if usage is None:
            usage = self._tenants[tenant_id] = _Usage()
        self._settle(usage, now_s)
        usage.blocks += num_blocks

    def excess(self, tenant_id: TenantId, now_s: float) -> float:
        """Return a tenant's usage over an equal share, at least 1. O(tenants)."""
        if len(self._tenants) == 1 or tenant_id not in self._tenants:
            return 1.0
        for usage in self._tenants.values():
            self._settle(usage, now_s)
        total = sum(usage.block_s for usage in self._tenants.values())
        active = sum(1 for usage in self._tenants.values() if usage.block_s > 0 or usage.blocks)
        return max(1.0, self._tenants[tenant_id].block_s * active / total) if total else 1.0

    def check_invariants(self, held: Mapping[TenantId, int]) -> None:
        """Raise if tenants are counted with other blocks than they hold.

        Raises:
            InvariantError: Gives both counts.
        """
        for tenant_id, usage in self._tenants.items():
            if usage.blocks != held.get(tenant_id, 0):
                raise InvariantError(
                    f"tenant {tenant_id!r} is counted with {usage.blocks} blocks and holds "
                    f"{held.get(tenant_id, 0)}"
                )

    def _settle(self, usage: _Usage, now_s: float) -> None:
        passed_s = now_s - usage.at_s
        if passed_s > 0:
            usage.block_s = usage.block_s * 0.5 ** (passed_s / HALF_LIFE_S) + (
                usage.blocks * passed_s
            )
            usage.at_s = now_s
