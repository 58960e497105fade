"""What goes wrong and when, by the seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random  # noqa: TID251 - seeded by the plan


class Fault(StrEnum):
    """What can go wrong; each ends by itself after a while, and all of it at ``heal_s``."""

    CRASH = "an engine crashes and restarts empty"
    HANG = "an engine hangs"
    SLOW = "an engine is slow"
    RESET = "connections to an engine break"
    CUT = "a link is cut"
    DELAY = "a link is slow"
    LOSE_EVENTS = "KV events are lost"
    REPEAT_EVENTS = "KV events come twice"
    SWAP_EVENTS = "KV events overtake each other"
    STALE_EVENTS = "KV events are late"
    NO_REPLAYS = "KV events are not repeated"
    GATEWAY_RESTART = "the gateway is killed and started again"
    CLIENT_VANISHES = "a client vanishes within a turn"
    TOOL_HANGS = "a tool hangs"
    CLOCK_JUMPS = "the clocks of an engine and of the gateway jump"
    DISK_FULL = "the journals' disk is full"
    FSYNC_FAILS = "the journals' fsync fails"


@dataclass(frozen=True)
class Planned:
    """A fault to come.

    Attributes:
        at_s: When.
        fault: What.
        target: Of which engine or session, modulo how many there are.
        lasts_s: For how long.
        size: How much of it, from 0 to 1.
    """

    at_s: float
    fault: Fault
    target: int
    lasts_s: float
    size: float


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        seed: It is made of.
        num_engines, num_sessions, num_turns: Turns are a session's.
        num_agents: Programs of the SDK's, of as many turns each.
        kv_blocks: Of an engine.
        policy: Of the scheduler.
        faults: In order of time.
        heal_s: When all is well again, and stays so.
    """

    seed: int
    num_engines: int
    num_sessions: int
    num_turns: int
    num_agents: int
    kv_blocks: int
    policy: str
    faults: Sequence[Planned]
    heal_s: float


POLICIES = ("panjiu", "panjiu", "panjiu", "sticky_least_loaded", "prefix_affinity", "round_robin")


def plan_of(seed: int, only: Callable[[Fault], bool] = lambda _: True) -> Plan:
    """Return the plan of a seed.

    Args:
        seed: Any number.
        only: Which faults may happen.
    """
    rng = Random(seed)  # noqa: S311 - it shall be the same again
    heal_s = rng.uniform(10.0, 40.0)
    kinds = [fault for fault in Fault if only(fault)]
    wanted = rng.sample(kinds, rng.randint(1, len(kinds))) if kinds else []
    faults = [
        Planned(
            at_s=rng.uniform(0.0, heal_s),
            fault=rng.choice(wanted),
            target=rng.randrange(1 << 16),
            lasts_s=rng.choice((0.05, 0.5, 2.0, 8.0)) * rng.uniform(0.5, 1.5),
            size=rng.random(),
        )
        for _ in range(rng.randint(1, 25) if wanted else 0)
    ]
    return Plan(
        seed=seed,
        num_engines=rng.randint(1, 4),
        num_sessions=rng.randint(2, 10),
        num_turns=rng.randint(2, 6),
        num_agents=rng.choice((0, 0, 1, 2)),
        kv_blocks=rng.choice((40, 150, 600)),
        policy=rng.choice(POLICIES),
        faults=sorted(faults, key=lambda one: one.at_s),
        heal_s=heal_s,
    )
