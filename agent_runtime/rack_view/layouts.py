"""Where replicas are, as the first message tells it."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet, EngineSlot
from agent_runtime.rack_view.messages import Chip, Layout, PlacedReplica
from hw_model.claim import Band
from hw_model.deployment import Deployment


def emulated_layout(
    deployment: Deployment,
    *,
    band: Band,
    policy: str,
    speed: float = 1.0,
    source: str = "emulated",
    fill: str = "reported",
) -> Layout:
    """Return the layout of an emulated rack, all its chips included.

    Args:
        deployment: What runs on it.
        band: Which machine within what is known.
        policy: Who decides.
        speed: Emulated seconds a second.
        source: Where the messages come from.
        fill: How it is known how full the KV is.
    """
    rack, model = deployment.rack, deployment.model
    num_chips = int(rack.num_chips.at(band))
    domain_chips = max(1, min(num_chips, int(rack.domain_chips.at(band))))
    chips = tuple(Chip(number // domain_chips) for number in range(num_chips))
    replicas = tuple(
        PlacedReplica(number, _chips_of(number, deployment, domain_chips, num_chips), str(number))
        for number in range(deployment.num_replicas)
    )
    return Layout(
        title=f"{model.title} on {rack.title}",
        rack=rack.name,
        model=model.name,
        policy=policy,
        source=source,
        band=band.value,
        speed=speed,
        kv_tokens=deployment.kv_tokens,
        chips=chips,
        replicas=replicas,
        fill=fill,
    )


def _chips_of(
    replica: int, deployment: Deployment, domain_chips: int, num_chips: int
) -> tuple[int, ...]:
    """Return a replica's chips: inside a domain, as the cost of moves between replicas has it."""
    size = deployment.parallelism.num_chips
    per_domain = max(1, domain_chips // size)
    domain, place = divmod(replica, per_domain)
    first = domain * domain_chips + place * size
    if first + size > num_chips:  # domains that don't divide evenly: more replicas than fit in them
        first = replica * size
    return tuple(range(first, first + size))


def fleet_layout(fleet: EngineFleet, *, policy: str, kv_tokens: int) -> Layout:
    """Return the layout of real engines as they are now: a slot each, as if it were one chip.

    Args:
        fleet: The engines.
        policy: Who decides.
        kv_tokens: That one engine's KV holds.
    """
    models = [str(card["id"]) for card in fleet.cards()]
    model = models[0] if models else "unknown model"
    return Layout(
        title=f"{model} on {sum(slot.address is not None for slot in fleet.slots)} engines",
        rack="engines",
        model=model,
        policy=policy,
        source="engines",
        band=None,
        speed=1.0,
        kv_tokens=kv_tokens,
        chips=(Chip(0),) * len(fleet.slots),
        replicas=tuple(
            PlacedReplica(slot.replica_id, (slot.replica_id,), _label(slot)) for slot in fleet.slots
        ),
    )


def _label(slot: EngineSlot) -> str:
    """Return an engine's URL without the name and password that it may have."""
    if slot.address is None:
        return ""
    parts = urlsplit(slot.address.url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
