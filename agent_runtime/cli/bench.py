"""``panjiu bench``: scheduling policies beside each other on the same sessions."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from agent_runtime.cli.bench_outputs import check_bench_outputs, leave_results
from agent_runtime.cli.bench_progress import run_cells
from agent_runtime.cli.rack_options import (
    EmulatedMachine,
    add_machine_options,
    add_ttft_boundary_option,
    emulated_machine,
    natural_float,
    positive_float,
    positive_int,
)
from agent_runtime.comparison.capacity import rack_capacity
from agent_runtime.comparison.cell import Bench, Cell
from agent_runtime.comparison.cell_store import CellStore, bench_digest
from agent_runtime.comparison.outcome import Outcome
from agent_runtime.errors import ConfigError
from agent_runtime.report.assumptions import assumptions
from agent_runtime.workload.agentx import MAX_GAP_S
from agent_runtime.workload.sources import GENERATORS, load_workload
from hw_model.claim import Band
from hw_model.ttft_boundary import TtftBoundary
from scheduler.policies import POLICIES, policy_entry

DESCRIPTION = """\
Run policies on the same sessions, at the same loads, with the same seeds, and compare them.

Sessions keep coming at random, whether or not the rack keeps up. A load of 1 is as many as a fluid
plan could serve that knows no batches, no fragments and no chance; real schedules saturate at 0.6
to 0.9 of it. Above that sessions must wait, and the question is which, and for how long."""

EXAMPLES = """\
examples:
  panjiu bench --replicas 4 --policies panjiu,llmd_default,thunderagent
                                              three policies on an eighth of the rack
  panjiu bench --sessions traces.jsonl.gz --policies all --load 0.6,0.9,1.2,1.6 --replicas 4 \\
      --seeds 5 --out results --html bench.html
                                              everything; if it is stopped, the same line goes on
  panjiu bench --host-kv-gb 64 --csv cells.csv
                                              with host memory for KV, one row a run
  panjiu bench --policies mori,concur --baseline mori --json - | jq .verdicts
                                              two others, for machines

exit codes: 0 done; 1 a run failed, the others are shown; 2 the command line is wrong;
130 interrupted: what is done is shown, and with --out kept
"""

DEFAULT_BASELINE = "panjiu"
LEAST_SESSIONS = 2
EXIT_FAILURE, EXIT_INTERRUPTED = 1, 130


def add_bench_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="compare scheduling policies on the same sessions",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_comparison_options(parser)
    _add_session_options(parser)
    group = add_machine_options(parser)
    group.add_argument(
        "--band",
        choices=[band.value for band in Band],
        default=Band.BASE.value,
        help="which machine within what is known (default: %(default)s)",
    )
    group.add_argument(
        "--host-kv-gb",
        type=natural_float,
        default=0.0,
        metavar="GB",
        help="host memory a chip for KV that HBM has no room for (default: 0)",
    )
    add_ttft_boundary_option(group)
    _add_output_options(parser)
    parser.set_defaults(run=run_bench)


def _add_comparison_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the comparison")
    group.add_argument(
        "--policies",
        type=_names,
        default="panjiu,home_for_life,llmd_default,kv_cost,round_robin",
        metavar="A,B,...",
        help=f"all, or some of: {', '.join(POLICIES)} (default: %(default)s)",
    )
    group.add_argument(
        "--baseline",
        metavar="NAME",
        help="whose standing against the best of the others is told, and what every policy is "
        "measured against (default: panjiu, or the first of --policies)",
    )
    group.add_argument(
        "--load",
        type=_loads,
        default="0.6,0.9,1.2",
        metavar="L,L,...",
        help="sessions that come over those a fluid plan could serve (default: %(default)s)",
    )
    group.add_argument(
        "--seeds", type=positive_int, default=3, metavar="N", help="runs of each (default: 3)"
    )
    group.add_argument(
        "--jobs",
        type=positive_int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="runs at a time (default: one a core)",
    )


def _add_session_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the sessions")
    group.add_argument(
        "--sessions",
        default="coding-agents",
        metavar="SOURCE",
        help=f"a trace file or folder, or a generator: {', '.join(GENERATORS)} "
        "(default: %(default)s)",
    )
    group.add_argument("--limit", type=positive_int, metavar="N", help="draw from N sessions")
    group.add_argument(
        "--num-sessions",
        type=positive_int,
        metavar="N",
        help="so many come in each run, again and again if need be (default: each once)",
    )
    group.add_argument(
        "--max-gap-s",
        type=natural_float,
        default=MAX_GAP_S,
        metavar="S",
        help="cut longer tool gaps to S seconds (default: %(default)g, InferenceX' rule)",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the results")
    group.add_argument(
        "--slo-slowdown",
        type=positive_float,
        default=5.0,
        metavar="X",
        help="a session is good if its model calls took X times as long as alone, or less "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--out",
        metavar="DIR",
        help="keep every run there; the same command goes on where it was stopped",
    )
    group.add_argument(
        "--json",
        metavar="OUT",
        help="write runs, means with intervals and ratios to a file, - for stdout (docs/bench.md)",
    )
    group.add_argument("--csv", metavar="OUT", help="write one row a run")
    group.add_argument("--html", metavar="OUT", help="write a self-contained page with charts")


def run_bench(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    check_bench_outputs(args)
    names = list(POLICIES) if args.policies == ["all"] else args.policies
    baseline = _baseline(args.baseline, names)
    machine = emulated_machine(args)
    bench = _bench(args, machine)
    # Seed by seed, so that whoever stops it has every policy with as many seeds.
    cells = [
        Cell(policy, load, seed)
        for seed in range(args.seeds)
        for load in args.load
        for policy in names
    ]
    store = CellStore(None if args.out is None else Path(args.out), bench_digest(bench))
    failed, was_stopped = run_cells(bench, cells, store, args.jobs)
    results = [store.results[cell] for cell in cells if cell in store.results]
    outcome = Outcome(bench, cells, results, failed, baseline)
    leave_results(outcome, args, assumptions(machine.rack, machine.chip))
    if was_stopped:
        again = "the same command goes on" if args.out else "with --out DIR it could go on"
        Console(stderr=True).print(
            f"interrupted; {len(results)} of {len(cells)} runs were done; {again}"
        )
        return EXIT_INTERRUPTED
    return EXIT_FAILURE if failed else 0


def _baseline(asked: str | None, names: Sequence[str]) -> str:
    """Return the policy that others are measured against.

    Raises:
        ConfigError: It does not run.
        UnknownPolicyError: Some name is of no policy.
    """
    for name in names:
        policy_entry(name)
    if asked is None:
        return DEFAULT_BASELINE if DEFAULT_BASELINE in names else names[0]
    policy_entry(asked)
    if asked not in names:
        raise ConfigError(
            f"--baseline {asked}: it is not among --policies {','.join(names)}; add it there"
        )
    return asked


def _bench(args: argparse.Namespace, machine: EmulatedMachine) -> Bench:
    workload = load_workload(args.sessions, limit=args.limit, seed=0, max_gap_s=args.max_gap_s)
    if workload.arrives_s is not None:
        raise ConfigError(
            f"--sessions {args.sessions}: its requests come at set times; bench needs sessions, "
            "whose turns wait for replies"
        )
    num_sessions = args.num_sessions or len(workload.sessions)
    if num_sessions < LEAST_SESSIONS:
        raise ConfigError(
            f"{num_sessions} session a run is no load: load is the rate at which they follow each "
            "other; ask for more with --num-sessions, those there are come again"
        )
    band = Band(args.band)
    deployment = machine.deployment(band, workload.block_size_tokens)
    try:
        capacity = rack_capacity(workload, deployment, band)
    except ValueError as error:
        raise ConfigError(
            f"--sessions {args.sessions}: {error} ({deployment.kv_tokens:,} tokens); use a larger "
            "--tp, or --kv-precision fp8"
        ) from error
    return Bench(
        workload=workload,
        deployment=deployment,
        capacity=capacity,
        band=band,
        num_sessions=args.num_sessions,
        host_bytes_per_chip=args.host_kv_gb * 1e9,
        slo_slowdown=args.slo_slowdown,
        limits=machine.limits,
        ttft_boundary=TtftBoundary(args.ttft_boundary),
    )


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected names of policies, separated by commas, or all")
    return list(dict.fromkeys(names))


def _loads(text: str) -> list[float]:
    loads = [positive_float(part.strip()) for part in text.split(",")]
    return sorted(set(loads))
