"""Sessions as SemiAnalysis' AgentX benchmark replays them, so that results can be compared.

Its rules (InferenceX, AIPerf's scenario ``inferencex-agentx-mvp``): so many live trajectories at a
time, the first ones started somewhere in their middle, and whenever one ends another from its
beginning; replies as recorded; the delay from a reply's end to the next request as recorded, but
five minutes at most; a trajectory finds nothing of others in the cache. The cap on the idle time of
the whole system is the simulation's (``SimulationOptions.max_idle_s``), and so is the number of
live trajectories (``SimulationOptions.concurrency``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from agent_runtime.errors import ConfigError
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from scheduler.ids import SessionId

MAX_GAP_S = 300.0
"""InferenceX cuts longer pauses of a trajectory to this."""

MAX_IDLE_S = 10.0
"""When nobody has asked anything for so long, everybody's next request comes sooner (AIPerf)."""

START_RATIOS = (0.25, 0.75)
"""Which share of a lane's first trajectory lies behind it, drawn between the two.

AIPerf's default, though there of the recorded time; 0.13.0's scenario widens it to 0-100 %."""


def agentx_replay(workload: Workload, *, num_lanes: int | None, seed: int) -> Workload:
    """Return the trajectories that AgentX would replay, in the order in which lanes take them.

    Args:
        workload: Recorded or generated sessions. Each is replayed once; where there are fewer than
            lanes, they are taken again from the first on, under names and block ids of their own.
        num_lanes: Live trajectories, >= 1; None for all sessions at once.
        seed: Of where the lanes start; lane ``i`` depends on the seed and ``i`` alone.

    Raises:
        ConfigError: The workload's requests come at set times, so nobody waits for a reply.
    """
    if workload.arrives_s is not None:
        raise ConfigError(
            f"--replay agentx: {workload.name} holds requests that come at set times; it takes "
            "sessions, whose turns wait for replies"
        )
    recorded = workload.sessions
    lanes = len(recorded) if num_lanes is None else num_lanes
    scope_size = 1 << max(_largest_id(script.turns) for script in recorded).bit_length()
    trajectories = []
    for number in range(max(lanes, len(recorded))):
        round_number, index = divmod(number, len(recorded))
        suffix = f"@{round_number}" if lanes > len(recorded) else ""
        own = _Trajectory(block_id_shift=number * scope_size, name_suffix=suffix)
        script = own.of(recorded[index])
        is_first_of_lane = number < lanes
        trajectories.append(_from_the_middle(script, seed, number) if is_first_of_lane else script)
    note = (
        f"Replayed by AgentX' rules: {lanes} live trajectories, the first ones from 25-75 % of "
        f"their turns on without warm-up calls, pauses cut at {MAX_GAP_S:g} s, all pauses together "
        f"at {MAX_IDLE_S:g} s, no KV shared between trajectories."
    )
    return replace(workload, sessions=tuple(trajectories), notes=(*workload.notes, note))


def again(workload: Workload, index: int, round_number: int) -> SessionScript:
    """Return a session of a workload once more, under names and with KV of its own.

    Args:
        workload: Whose session.
        index: Which.
        round_number: Which time, >= 1.
    """
    scope_size = 1 << max(_largest_id(script.turns) for script in workload.sessions).bit_length()
    own = _Trajectory(round_number * scope_size, f"@{round_number}")
    return own.of(workload.sessions[index])


def _from_the_middle(script: SessionScript, seed: int, lane: int) -> SessionScript:
    ratio = np.random.default_rng([seed, lane]).uniform(*START_RATIOS)
    first, *following = script.turns[int(ratio * len(script.turns)) :]
    return replace(script, turns=(replace(first, gap_s=0.0), *following))


@dataclass(frozen=True, slots=True)
class _Trajectory:
    """A replayed session: the recorded one with ids that no other has.

    Attributes:
        block_id_shift: Added to every block id.
        name_suffix: Ends every session id, sub-agents' included.
    """

    block_id_shift: int
    name_suffix: str

    def of(self, script: SessionScript) -> SessionScript:
        """Return a session, or a sub-agent, as this trajectory's."""
        return replace(
            script,
            session_id=SessionId(script.session_id + self.name_suffix),
            turns=tuple(self._turns(script)),
            start_delay_s=min(script.start_delay_s, MAX_GAP_S),
        )

    def _turns(self, script: SessionScript) -> Iterator[ScriptedTurn]:
        shift = self.block_id_shift
        for turn in script.turns:
            yield replace(
                turn,
                gap_s=min(turn.gap_s, MAX_GAP_S),
                block_id_runs=tuple((a + shift, b + shift) for a, b in turn.block_id_runs),
                children=tuple(self.of(child) for child in turn.children),
            )


def _largest_id(turns: tuple[ScriptedTurn, ...]) -> int:
    return max(
        (
            max(
                max((last for _, last in turn.block_id_runs), default=0),
                max((_largest_id(child.turns) for child in turn.children), default=0),
            )
            for turn in turns
        ),
        default=0,
    )
