"""How fast the rack simulates, and whether the same seed gives the same bytes.

    python -m benchmarks.simulate_speed                            generated coding agents
    python -m benchmarks.simulate_speed --sessions TRACE.jsonl.gz  a recorded trace

Runs every policy on 16 and on 32 replicas at band base, each twice with the same seed, and prints
wall seconds, turns per wall second, and whether the two summaries are equal to the byte but for the
wall-clock keys. Exits 1 if they are not.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.table import Table

from agent_runtime.measurement.summary import RunSummary
from agent_runtime.simulation.rack_simulation import SimulationOptions
from agent_runtime.simulation.simulate import simulate
from agent_runtime.workload.session_script import Workload
from agent_runtime.workload.sources import load_workload
from hw_model.catalog import Catalog
from hw_model.deployment import DeploymentRequest, plan_deployment
from scheduler.policies import POLICIES

WALL_KEYS = {"wall_s", "turns_per_wall_s"}


def run(workload: Workload, policy: str, num_replicas: int) -> RunSummary:
    """Simulate once at band base with seed 0."""
    catalog = Catalog.packaged()
    rack = catalog.rack("panjiu-al128")
    deployment = plan_deployment(
        rack,
        catalog.chip(rack.chip),
        catalog.model("qwen3-235b-a22b"),
        DeploymentRequest(num_replicas=num_replicas, block_size_tokens=workload.block_size_tokens),
    )
    options = SimulationOptions(policy=policy)
    return simulate(workload, deployment, options, stopwatch=time.perf_counter).summary


def main() -> int:
    """Print the table; return 1 if a repeated run differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", default="coding-agents", metavar="SOURCE")
    parser.add_argument("--limit", type=int, metavar="N")
    args = parser.parse_args()
    began_s = time.perf_counter()
    workload = load_workload(args.sessions, limit=args.limit, seed=0)
    read_s = time.perf_counter() - began_s
    table = Table(
        title=f"{workload.name}: {len(workload.sessions)} sessions, read in {read_s:.1f} s"
    )
    for heading in ("policy", "replicas", "turns", "wall s", "turns/s", "same bytes"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    all_same = True
    for policy in POLICIES:
        for num_replicas in (16, 32):
            first, second = (run(workload, policy, num_replicas) for _ in range(2))
            same = first.model_dump_json(exclude=WALL_KEYS) == second.model_dump_json(
                exclude=WALL_KEYS
            )
            all_same = all_same and same
            table.add_row(
                policy,
                str(num_replicas),
                f"{first.turns:,}",
                f"{first.wall_s:.1f}",
                f"{first.turns_per_wall_s:,.0f}",
                "yes" if same else "NO",
            )
    Console().print(table)
    return 0 if all_same else 1


if __name__ == "__main__":
    sys.exit(main())
