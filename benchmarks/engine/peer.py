"""Runs a peer's engine on a case: AISimulate, in a Python environment of its own.

    python3 -m venv PEER
    PEER/bin/pip install --pre aisimulate     # 1.5 GB; tried with 0.13.0.dev202610270000000085

Then name ``PEER/bin/python`` with ``--peer-python`` or in ``$PANJIU_PEER_PYTHON``. It runs offline.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine.request_load import Case, Means

PEER_ENVIRONMENT = "PANJIU_PEER_PYTHON"
KV_BYTES_PER_TOKEN = 131_072
"""The peer asks for it; with a fixed number of blocks nothing depends on it."""

TIMEOUT_S = 600


class PeerError(Exception):
    """The peer can't be run; says why."""


@dataclass(frozen=True, slots=True)
class PeerOutcome:
    """What the peer says of a case.

    Attributes:
        replay_s: Wall seconds of its replay alone, by its own clock.
        process_s: Wall seconds of the whole process, imports included.
    """

    means: Means
    replay_s: float
    process_s: float


def peer_config(case: Case, trace: str, trace_block_tokens: int) -> dict[str, Any]:
    """Return the peer's configuration of a case."""
    return {
        "traffic": {
            "source": {
                "type": "trace",
                "paths": [trace],
                "format": "mooncake",
                "block_size": trace_block_tokens,
            },
            "load": {"type": "trace_timestamps"},
        },
        "engine": {
            "mode": "aggregated",
            "model": "meta-llama/Meta-Llama-3.1-8B",
            "hardware": "h100_sxm",
            "backend": "vllm",
            "workers": {"aggregated": _worker(case)},
        },
    }


def _worker(case: Case) -> dict[str, Any]:
    return {
        "parallelism": {"replicas": case.num_replicas},
        "scheduler": {
            "max_batched_tokens": case.max_num_batched_tokens,
            "max_sequences": case.max_num_seqs,
        },
        "kv_cache": {
            "block_size": case.block_size_tokens,
            "prefix_caching": case.prefix_caching,
            "bytes_per_token": KV_BYTES_PER_TOKEN,
            "capacity": {"type": "fixed", "blocks": case.kv_blocks},
        },
        "timing": {
            "type": "fixed",
            "prefill_ms": case.prefill_s * 1e3,
            "decode_ms": case.decode_s * 1e3,
        },
    }


class Peer:
    """An installed peer.

    Args:
        python: The interpreter of its environment.

    Raises:
        PeerError: There is no such interpreter, or it doesn't have the peer.
    """

    def __init__(self, python: str) -> None:
        self._python = python
        script = "from importlib.metadata import version; print(version('aisimulate'))"
        self.version = self._run("-c", script).strip()

    def run(self, case: Case, trace: Path, trace_block_tokens: int) -> PeerOutcome:
        """Run a case on a trace in Mooncake's form.

        Raises:
            PeerError: It refuses the case.
        """
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "case.yaml"  # JSON is YAML
            config.write_text(json.dumps(peer_config(case, str(trace), trace_block_tokens)))
            options = ("--config", str(config), "--output-dir", f"{folder}/out", "--format", "json")
            began_s = time.perf_counter()
            said = self._run("-m", "aisimulate", "predict", *options)
            process_s = time.perf_counter() - began_s
        summary = json.loads(said)
        means = Means(
            ttft_s=summary["mean_ttft_ms"] / 1e3,
            tpot_s=summary["mean_tpot_ms"] / 1e3,
            e2e_s=summary["mean_e2e_latency_ms"] / 1e3,
        )
        return PeerOutcome(means, summary["wall_time_ms"] / 1e3, process_s)

    def _run(self, *arguments: str) -> str:
        try:
            return subprocess.run(  # noqa: S603 - the user names the program
                [self._python, *arguments],
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
                check=True,
                timeout=TIMEOUT_S,
            ).stdout
        except subprocess.CalledProcessError as error:
            raise PeerError(f"{self._python}: {error.stderr.strip()[-500:]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeerError(str(error)) from error


def add_peer_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--peer-python``."""
    parser.add_argument(
        "--peer-python",
        metavar="PATH",
        default=os.environ.get(PEER_ENVIRONMENT),
        help=f"the peer's interpreter (default: ${PEER_ENVIRONMENT}; without one, no peer is run). "
        "Make one with: python3 -m venv PEER; PEER/bin/pip install --pre aisimulate",
    )


def peer_of(options: argparse.Namespace) -> Peer | None:
    """Return the peer that a user named; say on stderr why there is none."""
    if not options.peer_python:
        print("no peer: name its interpreter with --peer-python", file=sys.stderr)
        return None
    try:
        return Peer(options.peer_python)
    except PeerError as error:
        print(f"no peer: {error}", file=sys.stderr)
        return None


def deviations(own: Means, other: Means) -> Sequence[float]:
    """Return by which share of the other's our mean TTFT, TPOT and E2E differ."""
    pairs = ((own.ttft_s, other.ttft_s), (own.tpot_s, other.tpot_s), (own.e2e_s, other.e2e_s))
    return [mine / theirs - 1 for mine, theirs in pairs]
