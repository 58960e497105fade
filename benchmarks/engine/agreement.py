"""Whether our engine and a peer's say the same of the same requests.

    python -m benchmarks.engine.agreement --peer-python PATH                    both, side by side
    python -m benchmarks.engine.agreement --peer-python PATH --record FIXTURE   and keep the peer's

Each case is a load on one replica with fixed step times, chosen so that one thing decides: KV that
is full, prompts in chunks, few sequences, no prefix cache. ``tests/data/peer_agreement.json`` is
such a fixture, and ``tests/test_peer_agreement.py`` holds our engine to it without the peer.

Where requests are preempted, ours are given twice: once as they are, and once with the peer's idea
of which steps compute prompts (``PeerStepTime``), which is all that the two differ in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.engine.peer import (
    Peer,
    PeerError,
    add_peer_option,
    deviations,
    peer_config,
    peer_of,
)
from benchmarks.engine.request_load import (
    TRACE_BLOCK_TOKENS,
    Case,
    Means,
    TimedRequest,
    replicas,
    request_trace,
    run_requests,
    write_mooncake,
)


@dataclass(frozen=True, slots=True)
class Load:
    """Arguments of ``request_trace``."""

    num_requests: int
    per_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class AgreementCase:
    """A load on a replica, and what it is about."""

    name: str
    load: Load
    case: Case


CASES = (
    AgreementCase("enough of everything", Load(1_000, 1.6, 1), Case()),
    AgreementCase("KV is full now and then", Load(1_000, 2.4, 2), Case()),
    AgreementCase("KV is always full", Load(1_000, 4.0, 3), Case()),
    AgreementCase("no prefix cache", Load(1_000, 2.4, 4), Case(prefix_caching=False)),
    AgreementCase("prompts in chunks", Load(1_000, 1.6, 5), Case(max_num_batched_tokens=128)),
    AgreementCase("few sequences at once", Load(1_000, 1.2, 6), Case(max_num_seqs=16)),
)


def checksum(requests: Sequence[TimedRequest]) -> str:
    """Return what tells one trace from another, e.g. of another version of the generator."""
    digest = hashlib.sha256()
    for request in requests:
        digest.update(repr((request.arrives_s, request.isl_tokens, request.osl_tokens)).encode())
        digest.update(repr(tuple(request.block_hashes)).encode())
    return digest.hexdigest()


def trace_of(load: Load) -> list[TimedRequest]:
    """Draw the requests of a load."""
    return request_trace(load.num_requests, load.per_s, load.seed)


def ask_peer(peer: Peer, each: AgreementCase) -> Means:
    """Return the peer's means.

    Raises:
        PeerError: It refuses the case.
    """
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.jsonl"
        write_mooncake(trace_of(each.load), trace)
        return peer.run(each.case, trace, TRACE_BLOCK_TOKENS).means


def fixture(peer: Peer, said: dict[str, Means]) -> dict[str, Any]:
    """Return what the test needs, and how it was made."""
    return {
        "made_with": {
            "command": "python -m benchmarks.engine.agreement --peer-python PATH --record FIXTURE",
            "peer": f"aisimulate {peer.version} (Apache-2.0), predict --config CASE --format json",
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
        },
        "cases": [
            {
                "name": each.name,
                "load": asdict(each.load),
                "trace_sha256": checksum(trace_of(each.load)),
                "case": asdict(each.case),
                "peer_config": peer_config(each.case, "TRACE.jsonl", TRACE_BLOCK_TOKENS),
                "peer_means": asdict(said[each.name]),
            }
            for each in CASES
        ],
    }


def table(peer: Peer, said: dict[str, Means]) -> Table:
    """Return both engines' means for a person."""
    result = Table(title=f"Off aisimulate {peer.version}, by mean TTFT, TPOT and E2E")
    for heading in ("case", "peer's TTFT s", "TPOT ms", "E2E s", "preempted"):
        result.add_column(heading, justify="left" if heading == "case" else "right")
    result.add_column("ours")
    result.add_column("ours at the peer's prices")
    for each in CASES:
        theirs = said[each.name]
        outcomes = [
            run_requests(replicas(each.case, peer_prices=peer_prices), trace_of(each.load))
            for peer_prices in (False, True)
        ]
        off = [
            " ".join(f"{share:+.3%}" for share in deviations(outcome.means, theirs))
            for outcome in outcomes
        ]
        times = (f"{theirs.ttft_s:.4f}", f"{theirs.tpot_s * 1e3:.3f}", f"{theirs.e2e_s:.3f}")
        result.add_row(each.name, *times, f"{outcomes[0].num_preemptions:,}", *off)
    return result


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_peer_option(parser)
    parser.add_argument("--record", type=Path, metavar="FIXTURE", help="keep the peer's means")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    peer = peer_of(options)
    if peer is None:
        return 2
    try:
        said = {each.name: ask_peer(peer, each) for each in CASES}
    except PeerError as error:
        print(error, file=sys.stderr)
        return 1
    if options.record is not None:
        text = json.dumps(fixture(peer, said), indent=2) + "\n"
        options.record.write_text(text, encoding="utf-8")
    if options.json:
        print(json.dumps({name: asdict(means) for name, means in said.items()}, indent=2))
    else:
        Console(width=150).print(table(peer, said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
