"""A day of a rack in a minute: 128 replicas, 1,000 agent sessions, 24 simulated hours.

    python -m benchmarks.engine.rack_day                      1,000 sessions, begun through the day
    python -m benchmarks.engine.rack_day --alive              1,000 alive at any time of the day
    python -m benchmarks.engine.rack_day --alive --hours 1    an hour of that

qwen3-8b on the 128 chips of panjiu-al128, a replica a chip, band base, placed by panjiu; generated
coding agents. A session has about 90 calls and lasts about 25 minutes, so 1,000 of them make 89,000
calls, and 1,000 *alive* for a day 61 times as many: there, whoever ends is followed by the next. As
many sessions as that don't fit into memory and take longer to draw than to run, so 1,000 are drawn
and come again under new names and with new block ids; only the trunks of harnesses stay shared.

Prints simulated seconds, calls, wall seconds, peak RSS of the process, and what each part took.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from rich.console import Console
from rich.table import Table

from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.workload.coding_agents import (
    HARNESSES,
    SUB_AGENT_TRUNKS,
    coding_agent_sessions,
)
from agent_runtime.workload.growing_context import SCOPE_SIZE
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript
from hw_model.catalog import Catalog
from hw_model.deployment import DeploymentRequest, plan_deployment
from scheduler.ids import SessionId
from scheduler.policies import POLICIES

FIRST_OWN_ID = (1 + len(HARNESSES) + len(SUB_AGENT_TRUNKS)) * SCOPE_SIZE
"""Block ids below are of trunks, which sessions share."""

HOUR_S = 3_600.0
RAMP_S = 0.4 * HOUR_S
"""With ``--alive``, the first sessions start within about the life of one."""


@dataclass(frozen=True, slots=True)
class DayResult:
    """What was simulated and what it took; ``draw_s`` is not part of ``wall_s``."""

    replicas: int
    sessions_completed: int
    simulated_s: float
    calls: int
    draw_s: float
    wall_s: float
    peak_rss_bytes: int
    mean_ttft_s: float
    mean_slowdown: float

    @property
    def calls_per_wall_s(self) -> float:
        """Model calls simulated in a wall second."""
        return self.calls / self.wall_s


class Successors:
    """Whoever ends is followed by another until ``end_s``: the drawn sessions again and again."""

    def __init__(self, scripts: Sequence[SessionScript], end_s: float) -> None:
        self._scripts = scripts
        self._end_s = end_s
        self._num_followed = 0

    def after(self, _ended: SessionScript, now_s: float) -> SessionScript | None:
        """Return who follows a session that ended; None at the end of the day."""
        if now_s >= self._end_s:
            return None
        again, index = divmod(self._num_followed, len(self._scripts))
        self._num_followed += 1
        shift = (again + 1) * len(self._scripts) * SCOPE_SIZE
        return _renewed(self._scripts[index], again + 1, shift)


def _renewed(script: SessionScript, again: int, shift: int) -> SessionScript:
    """Return a session alike, with a name and block ids of its own."""
    turns = tuple(_renewed_turn(turn, again, shift) for turn in script.turns)
    return replace(script, session_id=SessionId(f"{script.session_id}~{again}"), turns=turns)


def _renewed_turn(turn: ScriptedTurn, again: int, shift: int) -> ScriptedTurn:
    runs = tuple(
        (first, last) if first < FIRST_OWN_ID else (first + shift, last + shift)
        for first, last in turn.block_id_runs
    )
    children = tuple(_renewed(child, again, shift) for child in turn.children)
    return ScriptedTurn(turn.isl_tokens, turn.osl_tokens, turn.gap_s, runs, children)


def simulate_day(options: argparse.Namespace, profiler: cProfile.Profile | None) -> DayResult:
    """Draw the sessions, lay out the rack, and run it."""
    began_s = time.perf_counter()
    workload = coding_agent_sessions(options.sessions, seed=0)
    draw_s = time.perf_counter() - began_s
    catalog = Catalog.packaged()
    rack = catalog.rack("panjiu-al128")
    request = DeploymentRequest(
        num_replicas=options.replicas, block_size_tokens=workload.block_size_tokens
    )
    model = catalog.model(options.model)
    deployment = plan_deployment(rack, catalog.chip(rack.chip), model, request)
    end_s = options.hours * HOUR_S
    window_s = min(RAMP_S, end_s) if options.alive else end_s
    how = SimulationOptions(policy=options.policy, start_window_s=window_s)
    began_s = time.perf_counter()
    if profiler is not None:
        profiler.enable()
    successors = Successors(workload.sessions, end_s)
    simulation = RackSimulation(
        workload, deployment, how, successors.after if options.alive else None
    )
    simulation.run()
    if profiler is not None:
        profiler.disable()
    log = simulation.log
    return DayResult(
        replicas=deployment.num_replicas,
        sessions_completed=len(log.jct_s),
        simulated_s=simulation.now_s,
        calls=log.num_turns,
        draw_s=draw_s,
        wall_s=time.perf_counter() - began_s,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        mean_ttft_s=float(log.ttft_s.mean()),
        mean_slowdown=float(log.slowdown.mean()),
    )


def table(result: DayResult) -> Table:
    """Return the result for a person."""
    lines = Table(title="Coding agents on a rack", show_header=False)
    lines.add_column()
    lines.add_column(justify="right")
    for name, value in (
        ("replicas", f"{result.replicas}"),
        ("sessions completed", f"{result.sessions_completed:,}"),
        ("simulated", f"{result.simulated_s:,.0f} s"),
        ("calls", f"{result.calls:,}"),
        ("wall, drawing the sessions", f"{result.draw_s:.1f} s"),
        ("wall, simulating", f"{result.wall_s:.1f} s"),
        ("calls a wall second", f"{result.calls_per_wall_s:,.0f}"),
        ("times faster than real", f"{result.simulated_s / result.wall_s:,.0f}"),
        ("peak RSS", f"{result.peak_rss_bytes / 1e9:.2f} GB"),
        ("mean TTFT", f"{result.mean_ttft_s:.3f} s"),
        ("mean slowdown", f"{result.mean_slowdown:.3f}"),
    ):
        lines.add_row(name, value)
    return lines


def main() -> int:
    """Print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=1_000, metavar="N")
    parser.add_argument("--hours", type=float, default=24.0, metavar="H", help="simulated")
    parser.add_argument("--alive", action="store_true", help="who ends is followed by another")
    parser.add_argument("--replicas", type=int, default=128, metavar="N")
    parser.add_argument("--model", default="qwen3-8b", metavar="NAME")
    parser.add_argument("--policy", default="panjiu", choices=sorted(POLICIES))
    parser.add_argument("--profile", action="store_true", help="say where the time goes, to stderr")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    profiler = cProfile.Profile() if options.profile else None
    result = simulate_day(options, profiler)
    if profiler is not None:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    if options.json:
        derived = {"calls_per_wall_s": result.calls_per_wall_s}
        print(json.dumps({**asdict(result), **derived}, indent=2))
    else:
        Console().print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
