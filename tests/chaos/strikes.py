"""How each fault begins and ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.chaos.fault_plan import Fault, Planned
from tests.chaos.sim_agent import SimTools
from tests.chaos.sim_client import SimClient
from tests.chaos.sim_disk import SimDisk
from tests.chaos.sim_engine import Health, SimEngine
from tests.chaos.sim_gateway import SimGateway
from tests.chaos.sim_network import Link, SimNetwork


@dataclass(frozen=True)
class Struck:
    """What a fault may hit: one of each kind."""

    planned: Planned
    engine: SimEngine
    client: SimClient
    network: SimNetwork
    gateway: SimGateway
    disk: SimDisk
    tools: SimTools

    @property
    def link(self) -> Link:
        """To the engine."""
        return self.network.links[self.engine.number]

    @property
    def num_events(self) -> int:
        """How many KV events it hits."""
        return 1 + int(5 * self.planned.size)


def _hang(struck: Struck) -> None:
    if struck.engine.health is Health.UP:
        struck.engine.hang()


def _slow(struck: Struck) -> None:
    struck.engine.slowness = 1 + 50 * struck.planned.size


def _cut(struck: Struck) -> None:
    struck.link.is_cut = True


def _delay(struck: Struck) -> None:
    struck.link.delay_s = 2 * struck.planned.size


def _lose(struck: Struck) -> None:
    struck.link.lose_events = struck.num_events


def _repeat(struck: Struck) -> None:
    struck.link.repeat_events = struck.num_events


def _swap(struck: Struck) -> None:
    struck.link.swap_events = struck.num_events


def _stale(struck: Struck) -> None:
    struck.link.stale_s = 5 * struck.planned.size


def _no_replays(struck: Struck) -> None:
    struck.link.replays = False


def _tool_hangs(struck: Struck) -> None:
    struck.client.tool_s = struck.planned.lasts_s
    struck.tools.hang_s = struck.planned.lasts_s


def _clock_jumps(struck: Struck) -> None:
    # The engine's by up to a day, the gateway's by less than its journal keeps things for.
    struck.engine.clock_s = 172_800 * (struck.planned.size - 0.5)
    struck.gateway.clock_s = 3_000 * (struck.planned.size - 0.5)


def _disk_full(struck: Struck) -> None:
    struck.disk.is_full = True


def _fsync_fails(struck: Struck) -> None:
    struck.disk.loses_fsyncs = True


def _disk_is_well(struck: Struck) -> None:
    struck.disk.is_full = struck.disk.loses_fsyncs = False


BEGIN: Mapping[Fault, Callable[[Struck], None]] = {
    Fault.CRASH: lambda struck: struck.engine.crash(),
    Fault.HANG: _hang,
    Fault.SLOW: _slow,
    Fault.RESET: lambda struck: struck.network.break_connections(struck.engine),
    Fault.CUT: _cut,
    Fault.DELAY: _delay,
    Fault.LOSE_EVENTS: _lose,
    Fault.REPEAT_EVENTS: _repeat,
    Fault.SWAP_EVENTS: _swap,
    Fault.STALE_EVENTS: _stale,
    Fault.NO_REPLAYS: _no_replays,
    Fault.GATEWAY_RESTART: lambda struck: struck.gateway.kill(),
    Fault.CLIENT_VANISHES: lambda struck: struck.client.vanishes.set(),
    Fault.TOOL_HANGS: _tool_hangs,
    Fault.CLOCK_JUMPS: _clock_jumps,
    Fault.DISK_FULL: _disk_full,
    Fault.FSYNC_FAILS: _fsync_fails,
}
END: Mapping[Fault, Callable[[Struck], None]] = {
    **dict.fromkeys((Fault.CRASH, Fault.HANG, Fault.SLOW), lambda struck: struck.engine.recover()),
    **dict.fromkeys(
        (Fault.CUT, Fault.DELAY, Fault.STALE_EVENTS, Fault.NO_REPLAYS),
        lambda struck: struck.link.mend(),
    ),
    **dict.fromkeys((Fault.DISK_FULL, Fault.FSYNC_FAILS), _disk_is_well),
}
"""Of those that don't end by themselves."""
