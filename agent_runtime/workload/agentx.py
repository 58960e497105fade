"""Sessions as SemiAnalysis' AgentX benchmark replays them, so that results can be compared.

Its rules (InferenceX, AIPerf's scenario ``inferencex-agentx-mvp``): so many live trajectories at a
time, each started somewhere in its middle; replies as recorded; the delay from a reply's end to the
next request as recorded; the first request of a trajectory finds nothing of others in the cache.
The cap on the idle time of the whole system is the simulation's (``SimulationOptions.max_idle_s``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload

MAX_GAP_S = 300.0
"""InferenceX cuts longer pauses of a trajectory to this."""

MAX_IDLE_S = 10.0
"""When nobody has asked anything for so long, everybody's next request comes sooner."""

START_RATIOS = (0.25, 0.75)
"""Which share of a trajectory's turns lies behind it when it starts, drawn between the two."""

LANE_IDS = 1 << 48
"""Block ids of a lane are its number times this, plus what they were."""


def agentx_lanes(workload: Workload, seed: int) -> Workload:
    """Return the workload's sessions as lanes of AgentX, all there from the start.

    Args:
        workload: Recorded or generated sessions.
        seed: Of where each starts.
    """
    lanes = tuple(
        _lane(script, number, np.random.default_rng([seed, number]))
        for number, script in enumerate(workload.sessions, start=1)
    )
    note = (
        "replayed by AgentX' rules: each session from 25-75 % of its turns on, its KV its own, "
        f"pauses cut at {MAX_GAP_S:g} s; no warm-up calls."
    )
    return Workload(
        workload.name,
        workload.block_size_tokens,
        lanes,
        (*workload.notes, note),
        arrives_s=(0.0,) * len(lanes),
        figures=workload.figures,
    )


def _lane(script: SessionScript, number: int, rng: np.random.Generator) -> SessionScript:
    num_behind = int(rng.uniform(*START_RATIOS) * len(script.turns))
    turns = list(_own(script.turns[num_behind:], number))
    turns[0] = replace(turns[0], gap_s=0.0)
    return replace(script, turns=tuple(turns))


def _own(turns: Iterable[ScriptedTurn], number: int) -> Iterable[ScriptedTurn]:
    """Give turns, and those of their sub-agents, block ids that no other lane has."""
    shift = number * LANE_IDS
    for turn in turns:
        runs = tuple((first + shift, last + shift) for first, last in turn.block_id_runs)
        children = tuple(
            replace(child, turns=tuple(_own(child.turns, number))) for child in turn.children
        )
        gap_s = min(turn.gap_s, MAX_GAP_S)
        yield replace(turn, gap_s=gap_s, block_id_runs=runs, children=children)
