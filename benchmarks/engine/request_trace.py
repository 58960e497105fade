"""Requests per wall second on one core, beside a peer's engine, and whether both agree.

    python -m benchmarks.engine.request_trace [--peer-python PATH] [--json]

Draws requests from a seed: Poisson arrivals, mean prompt 300, mean output 630 tokens, 30 % with a
common start of 64 tokens. They go to one replica with 2,588 blocks of 16 tokens, prefix caching on,
whose steps take 20 ms for prompts plus 25 ms for decoding. At 1.6 a second its KV suffices; at 3.3
it is full, requests wait for half a minute and are preempted by the thousand. All engines take the
same requests, alternating, and the best of some rounds counts:

  macro-stepping   our engine as everybody uses it: unchanging decode batches in closed form
  peer's prices    the same, with the peer's idea of which steps compute prompts: it takes who is
                   resumed after a preemption for decoding if its prompt is still cached. Nothing
                   else differs, so this agrees to the last digit.
  every token      our engine step by step
  peer             AISimulate's Rust engine; see --peer-python. Wall seconds are those of its replay
                   by its own clock; those of its process are given beside them.

Ours are of building the engines and running them, without drawing the requests. Compare rows of one
run only: machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engine.peer import Peer, add_peer_option, deviations, peer_of
from benchmarks.engine.request_load import (
    OWN_ENGINES,
    TRACE_BLOCK_TOKENS,
    Case,
    Means,
    TimedRequest,
    replicas,
    request_trace,
    run_requests,
    write_mooncake,
)

RATES_PER_S = (1.6, 3.3)


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine on one trace.

    Attributes:
        wall_s: The best round's.
        process_s: The best round's whole process, for the peer.
        num_preemptions: None where unknown.
    """

    engine: str
    per_s: float
    wall_s: float
    requests_per_wall_s: float
    means: Means
    num_preemptions: int | None = None
    process_s: float | None = None


def measure_own(
    requests: list[TimedRequest], *, macro_stepping: bool, peer_prices: bool
) -> tuple[float, Means, int]:
    """Return wall seconds, the means and the number of preemptions."""
    began_s = time.perf_counter()
    cores = replicas(Case(), macro_stepping=macro_stepping, peer_prices=peer_prices)
    outcome = run_requests(cores, requests)
    return time.perf_counter() - began_s, outcome.means, outcome.num_preemptions


def measure(
    num_requests: int, per_s: float, seed: int, rounds: int, peer: Peer | None
) -> list[Measured]:
    """Run every engine ``rounds`` times in turn on the same requests."""
    requests = request_trace(num_requests, per_s, seed)
    best: dict[str, Measured] = {}

    def keep(engine: str, wall_s: float, means: Means, **more: float) -> None:
        if engine not in best or wall_s < best[engine].wall_s:
            per_wall_s = num_requests / wall_s
            best[engine] = Measured(engine, per_s, wall_s, per_wall_s, means, **more)  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.jsonl"
        write_mooncake(requests, trace)
        for _ in range(rounds):
            for engine, macro_stepping, peer_prices in OWN_ENGINES:
                wall_s, means, preempted = measure_own(
                    requests, macro_stepping=macro_stepping, peer_prices=peer_prices
                )
                keep(engine, wall_s, means, num_preemptions=preempted)
            if peer is not None:
                said = peer.run(Case(), trace, TRACE_BLOCK_TOKENS)
                keep("peer", said.replay_s, said.means, process_s=said.process_s)
    return list(best.values())


def table(rows: list[Measured], num_requests: int, peer: Peer | None) -> Table:
    """Return the rows for a person."""
    title = f"{num_requests:,} requests, one replica, one core"
    if peer is not None:
        title += f"; peer: aisimulate {peer.version}"
    result = Table(title=title)
    for heading in (
        *("arrivals/s", "engine", "wall s", "process s", "requests/s", "preempted"),
        *("TTFT s", "TPOT ms", "E2E s", "off the peer's"),
    ):
        result.add_column(heading, justify="left" if heading == "engine" else "right")
    others = {row.per_s: row.means for row in rows if row.engine == "peer"}
    for row in rows:
        off = ""
        if row.per_s in others and row.engine != "peer":
            off = " ".join(f"{share:+.2%}" for share in deviations(row.means, others[row.per_s]))
        result.add_row(
            f"{row.per_s:g}",
            row.engine,
            f"{row.wall_s:.2f}",
            "" if row.process_s is None else f"{row.process_s:.2f}",
            f"{row.requests_per_wall_s:,.0f}",
            "" if row.num_preemptions is None else f"{row.num_preemptions:,}",
            f"{row.means.ttft_s:.4f}",
            f"{row.means.tpot_s * 1e3:.3f}",
            f"{row.means.e2e_s:.3f}",
            off,
        )
    return result


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=6_000, metavar="N")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES_PER_S, metavar="PER_S")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="the best one counts")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_peer_option(parser)
    options = parser.parse_args()
    peer = peer_of(options)
    rows: list[Measured] = []
    for per_s in options.rates:
        rows += measure(options.requests, per_s, options.seed, options.rounds, peer)
    if options.json:
        version = None if peer is None else peer.version
        print(json.dumps({"peer": version, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        Console(width=140).print(table(rows, options.requests, peer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
