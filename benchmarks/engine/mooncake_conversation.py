"""Mooncake's conversation trace end to end, beside a peer's engine.

    python -m benchmarks.engine.mooncake_conversation [--trace FILE] [--peer-python PATH] [--json]

12,031 requests of an hour, 145 M prompt tokens (kvcache-ai/Mooncake, Apache-2.0), on 8 replicas
that take them in turn. Each has 500,000 tokens of KV in blocks of 16 and computes 8,192 tokens a
step; steps take 1/64 s for prompts plus 1/32 s for decoding. Our seconds are from opening the file
to the last token: reading, checking, making block ids, running. The peer's are of its replay by its
own clock, and of its whole process, imports included. The best of some rounds counts. With the
peer's idea of which steps compute prompts (see request_trace.py) every mean is the peer's.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agent_runtime.workload.mooncake_trace import MOONCAKE_BLOCK_TOKENS, read_mooncake_trace
from agent_runtime.workload.session_script import Workload
from benchmarks.engine.peer import Peer, PeerOutcome, add_peer_option, deviations, peer_of
from benchmarks.engine.request_load import (
    OWN_ENGINES,
    Case,
    Means,
    Outcome,
    TimedRequest,
    replicas,
    run_requests,
)

DATA = Path(os.environ.get("PANJIU_DATA", Path(__file__).parents[3] / "shared" / "data"))
DEFAULT_TRACE = DATA / "mooncake_conversation.jsonl.gz"
KV_TOKENS = 500_000
PREFILL_S, DECODE_S = 1 / 64, 1 / 32
"""Exact in binary. Arrivals are multiples of 3 s, so with 20 and 25 ms many of them fall on the end
of a step, and rounding decides whether they are seen: in milliseconds, as the peer counts,
otherwise than in seconds."""


@dataclass(frozen=True, slots=True)
class OwnRun:
    """Our engine on the trace; ``read_s`` is part of ``wall_s``."""

    num_requests: int
    read_s: float
    wall_s: float
    outcome: Outcome


def the_case(block_size_tokens: int) -> Case:
    """Return 8 replicas with that block size."""
    return Case(
        num_replicas=8,
        kv_blocks=KV_TOKENS // block_size_tokens,
        block_size_tokens=block_size_tokens,
        max_num_batched_tokens=8_192,
        prefill_s=PREFILL_S,
        decode_s=DECODE_S,
    )


def requests_of(trace: Workload) -> Iterator[TimedRequest]:
    """Spell out the block ids of each request as it comes."""
    for arrives_s, script in zip(trace.arrives_s or (), trace.sessions, strict=True):
        (turn,) = script.turns
        hashes = list(chain(*(range(first, last + 1) for first, last in turn.block_id_runs)))
        yield TimedRequest(arrives_s, turn.isl_tokens, turn.osl_tokens, hashes)


def run_own(path: Path, case: Case, *, macro_stepping: bool, peer_prices: bool) -> OwnRun:
    """Read the trace and run it."""
    began_s = time.perf_counter()
    trace = read_mooncake_trace(path, block_size_tokens=case.block_size_tokens)
    read_s = time.perf_counter() - began_s
    cores = replicas(case, macro_stepping=macro_stepping, peer_prices=peer_prices)
    outcome = run_requests(cores, requests_of(trace))
    return OwnRun(len(trace.sessions), read_s, time.perf_counter() - began_s, outcome)


def run_peer(peer: Peer, path: Path, case: Case) -> PeerOutcome:
    """Run the peer on the trace, unpacked for it."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "trace.jsonl"
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        return peer.run(case, plain, MOONCAKE_BLOCK_TOKENS)


def best_runs(
    path: Path, case: Case, rounds: int, peer: Peer | None
) -> tuple[dict[str, OwnRun], PeerOutcome | None]:
    """Run every engine in turn, ``rounds`` times; return each one's fastest run."""
    own: dict[str, OwnRun] = {}
    said: PeerOutcome | None = None
    for _ in range(rounds):
        for name, macro_stepping, peer_prices in OWN_ENGINES:
            run = run_own(path, case, macro_stepping=macro_stepping, peer_prices=peer_prices)
            own[name] = min(own.get(name, run), run, key=lambda each: each.wall_s)
        if peer is not None:
            other = run_peer(peer, path, case)
            said = other if said is None or other.replay_s < said.replay_s else said
    return own, said


def table(own: dict[str, OwnRun], said: PeerOutcome | None) -> Table:
    """Return the runs for a person."""
    (first, *_) = own.values()
    outcome = first.outcome
    hits = outcome.num_cached_tokens / outcome.num_prompt_tokens
    title = (
        f"{first.num_requests:,} requests, {outcome.num_prompt_tokens / 1e6:.1f} M prompt tokens, "
        f"{hits:.1%} of them cached"
    )
    result = Table(title=title)
    for heading in (
        *("engine", "read s", "wall s", "process s", "requests/s"),
        *("TTFT s", "TPOT ms", "E2E s", "off the peer's"),
    ):
        result.add_column(heading, justify="left" if heading == "engine" else "right")

    def add(name: str, seconds: list[str], wall_s: float, means: Means, off: str) -> None:
        per_s = f"{first.num_requests / wall_s:,.0f}"
        times = (f"{means.ttft_s:.4f}", f"{means.tpot_s * 1e3:.3f}", f"{means.e2e_s:.3f}")
        result.add_row(name, *seconds, per_s, *times, off)

    for name, run in own.items():
        means = run.outcome.means
        shares = () if said is None else deviations(means, said.means)
        seconds = [f"{run.read_s:.2f}", f"{run.wall_s:.2f}", ""]
        add(name, seconds, run.wall_s, means, " ".join(f"{share:+.2%}" for share in shares))
    if said is not None:
        seconds = ["", f"{said.replay_s:.2f}", f"{said.process_s:.2f}"]
        add("peer", seconds, said.replay_s, said.means, "")
    return result


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, default=DEFAULT_TRACE, metavar="FILE")
    parser.add_argument("--block-size", type=int, default=16, metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="the best one counts")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_peer_option(parser)
    options = parser.parse_args()
    if not options.trace.is_file():
        print(f"no trace at {options.trace}; name it with --trace", file=sys.stderr)
        return 2
    peer = peer_of(options)
    own, said = best_runs(options.trace, the_case(options.block_size), options.rounds, peer)
    if options.json:
        runs: dict[str, object] = {name: asdict(run) for name, run in own.items()}
        if peer is not None and said is not None:
            runs["peer"] = {"version": peer.version, **asdict(said)}
        print(json.dumps(runs, indent=2))
    else:
        Console(width=130).print(table(own, said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
