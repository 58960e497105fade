"""How near the planner's mean values come to the simulator, and how fast it plans.

    python -m benchmarks.planner_vs_simulation

One replica serves sessions of steady length, with the gap, append and output that the plan
assumes; they share their first prompt, so that none starts cold. Prints planned and simulated mean
TTFT and TPOT and their ratios at rising load, then the time of a plan over a whole rack.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from agent_runtime.simulation.rack_simulation import SimulationOptions
from agent_runtime.simulation.simulate import simulate
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from hw_model.agent_load import AGENT_GAP, AgentLoad, ExponentialGap, Slo
from hw_model.capacity_plan import make_plan
from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.planner import Ask
from hw_model.session_cycle import Replica, estimate_replica
from hw_model.step_table import StepTable
from hw_model.step_time import StepTimeModel
from hw_model.ttft_boundary import TtftBoundary
from scheduler.ids import SessionId

BLOCK, TURNS, WARM_UP = 64, 30, 3
CASES = (
    ("qwen3-235b-a22b", 4, 64_000, 5.0, (1, 4, 10, 16, 20)),
    ("qwen3-235b-a22b", 8, 128_000, 12.0, (1, 4, 8, 14)),
    ("qwen3-8b", 1, 48_000, 3.0, (1, 4, 8, 12)),
)
PLANS = (
    ("qwen3-235b-a22b", 300, 128_000),
    ("qwen3-8b", 300, 32_000),
    ("qwen3-8b", 5_000, 32_000),
    ("qwen3.5-35b-a3b", 2_000, 128_000),
)


def one_replica(model: str, tp: int) -> Deployment:
    """Lay a model out on one replica of the rack."""
    catalog = Catalog.packaged()
    rack = catalog.rack("panjiu-al128")
    request = DeploymentRequest(tp=tp, num_replicas=1, block_size_tokens=BLOCK)
    return plan_deployment(rack, catalog.chip(rack.chip), catalog.model(model), request)


def steady_sessions(load: AgentLoad, seed: int = 0) -> Workload:
    """Return the load's sessions: contexts that grow around its context, one shared start."""
    rng = np.random.default_rng(seed)
    grown = load.append_tokens + load.output_tokens
    start = max(BLOCK, load.context_tokens - TURNS * grown // 2)
    shared = start // BLOCK
    scripts = []
    for session in range(load.sessions):
        first, turns = (session + 1) << 32, []
        for number in range(TURNS):
            isl = start + number * grown
            own = (isl + load.output_tokens) // BLOCK - shared
            runs = ((0, shared - 1), (first, first + own - 1)) if own else ((0, shared - 1),)
            gap_s = float(rng.exponential(load.gap.mean_s))
            turns.append(ScriptedTurn(isl, load.output_tokens, gap_s, runs))
        scripts.append(SessionScript(SessionId(f"s{session}"), tuple(turns)))
    return Workload("steady", BLOCK, tuple(scripts))


def compare(deployment: Deployment, load: AgentLoad) -> list[str]:
    """Return one row: planned, simulated and their ratio of TTFT and TPOT."""
    limits = EngineLimits()
    steps = StepTable(StepTimeModel(deployment, Band.BASE), load, limits, BLOCK)
    replica = Replica(steps, deployment.kv_tokens, limits.max_num_seqs)
    planned = estimate_replica(replica, load, sessions=load.sessions)
    options = SimulationOptions(
        start_window_s=2 * load.gap.mean_s, ttft_boundary=TtftBoundary.ENGINE
    )
    workload = steady_sessions(load)
    run = simulate(workload, deployment, options, stopwatch=time.perf_counter)
    warm = WARM_UP * load.sessions
    ttft_s, tpot_s = float(run.ttft_s[warm:].mean()), float(run.tpot_s[warm:].mean())
    return [
        f"{deployment.model.name} TP{deployment.tp} {load.context_tokens // 1000}k",
        str(load.sessions),
        f"{planned.busy_share:.0%} / {run.replicas[0].busy_ratio:.0%}",
        f"{planned.ttft_s:.3f} / {ttft_s:.3f}",
        f"{planned.ttft_s / ttft_s:.2f}",
        f"{planned.tpot_s * 1e3:.1f} / {tpot_s * 1e3:.1f}",
        f"{planned.tpot_s / tpot_s:.2f}",
    ]


def plan_seconds(model: str, sessions: int, context: int) -> tuple[int, float]:
    """Return how many layouts a plan estimated, and the wall seconds it took."""
    catalog = Catalog.packaged()
    rack = catalog.rack("panjiu-al128")
    load = AgentLoad(sessions, context, 900, 220, AGENT_GAP)
    ask = Ask(rack, catalog.chip(rack.chip), catalog.model(model), load, Slo(2.0, 0.05))
    began_s = time.perf_counter()
    plan = make_plan(ask, 8)
    return len(plan.candidates), time.perf_counter() - began_s


def main() -> int:
    """Print the comparison and the speed."""
    table = Table(title="planned / simulated: one replica, base")
    for heading in ("", "sessions", "busy", "TTFT s", "ratio", "TPOT ms", "ratio"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for model, tp, context, gap_s, counts in CASES:
        deployment = one_replica(model, tp)
        for sessions in counts:
            load = AgentLoad(sessions, context, 900, 220, ExponentialGap(gap_s))
            table.add_row(*compare(deployment, load))
        table.add_section()
    Console(width=100).print(table)
    for model, sessions, context in PLANS:
        layouts, seconds = plan_seconds(model, sessions, context)
        print(
            f"{model}, {sessions:,} sessions at {context:,}: {layouts:,} layouts, {seconds:.2f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
