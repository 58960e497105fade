"""What replicas report of themselves, as rows of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet, EngineSlot, SlotState
from agent_runtime.backends.vllm_servers.servers_probe import ServersProbe
from agent_runtime.rack_view.messages import Health, ReplicaRow
from hw_model.engine.engine_core import EngineCore

_HEALTH = {
    SlotState.EMPTY: Health.EMPTY,
    SlotState.DOWN: Health.DOWN,
    SlotState.UP: Health.UP,
    SlotState.DRAINING: Health.DRAINING,
}


class ReplicaGauges(Protocol):
    """What replicas report; somebody looks a few times a second at the most."""

    def read(self) -> Sequence[ReplicaRow]:
        """Return a row a replica, by id."""
        ...


class EngineGauges:
    """Of emulated engines: the truth of this moment."""

    def __init__(self, engines: Sequence[EngineCore]) -> None:
        self._engines = engines

    def read(self) -> list[ReplicaRow]:
        """Look into every engine."""
        return [
            ReplicaRow(
                engine.num_running,
                engine.num_waiting,
                permille(engine.kv_used_ratio),
                permille(engine.kv_active_ratio),
                int(Health.UP),
            )
            for engine in self._engines
        ]


class FleetGauges:
    """Of real engines: their metrics, a second old at most, and what their KV events add up to.

    vLLM does not tell how much of its KV holds anything, only what requests hold. Where its events
    are read, the blocks it stored and did not remove are counted; else that has to do.

    Args:
        fleet: The engines.
        probe: What is known of them.
    """

    def __init__(self, fleet: EngineFleet, probe: ServersProbe) -> None:
        self._fleet, self._probe = fleet, probe

    def read(self) -> list[ReplicaRow]:
        """Return what was heard last."""
        return [self._row(slot) for slot in self._fleet.slots]

    def _row(self, slot: EngineSlot) -> ReplicaRow:
        metrics = slot.metrics
        active = used = metrics.kv_usage
        if slot.has_events and metrics.num_kv_blocks:
            known = self._probe.residency.num_blocks(slot.replica_id)
            used = max(used, known / metrics.num_kv_blocks)
        return ReplicaRow(
            metrics.num_running,
            metrics.num_waiting,
            permille(used),
            permille(active),
            int(_HEALTH[slot.state]),
        )


def permille(ratio: float) -> int:
    """Return a share in thousandths, 1000 at the most."""
    return min(1000, round(1000 * ratio))
