"""Predicts real vLLM runs, request by request, from the card's own kernel times.

    python benchmarks/fidelity/vllm_runs.py [--data FOLDER] [--html OUT]

FOLDER holds the runs of LLMServingSim (casys-kaist/LLMServingSim, MIT): per run ``requests.jsonl``
(when vLLM queued each request, and when its first and last token came), ``meta.json``, ``kernels/``
and the workload with its token ids. The engine gets each request when vLLM's did; nothing else of
the run is used, but for one number: the profile of the two-card run has no collectives, so the
bandwidth of its all-reduce is fitted on the mean TPOT of the run and the rest is a prediction.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hw_model.engine.engine_core import EngineCore
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.kernel_profile import AllReduceCost, AttentionGrid, ProfiledStepTime

FloatArray = NDArray[np.float64]
DEFAULT_DATA = Path(__file__).parents[3] / "shared" / "data" / "vllm_runs"
BLOCK_SIZE_TOKENS = 16
FIT_STEPS = 9
"""Halvings of a range of 16: within 1 %."""


@dataclass(frozen=True)
class Run:
    """A recorded run and what its profile lacks.

    Attributes:
        num_blocks: KV blocks where the run's metadata doesn't say; any number it never filled.
        all_reduce: Latency and bandwidth of the TP group's collectives, or None for one card.
    """

    name: str
    workload: str
    tp: int
    num_layers: int
    num_blocks: int
    all_reduce: AllReduceCost | None = None


RUNS = (
    Run("RTX4090_Llama-3.1-8B", "sharegpt-llama-3.1-8b-300-sps10.jsonl.gz", 1, 32, 2588),
    Run(
        "RTXPRO6000_Qwen3-32B",
        "sharegpt-qwen3-32b-300-sps10.jsonl.gz",
        tp=2,
        num_layers=64,
        num_blocks=20_000,
        # 20 us is the order of NCCL over PCIe; the bandwidth is only where the fit starts.
        all_reduce=AllReduceCost(20e-6, 12e9, 5120 * 2, 2 * 64),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """Measured and predicted seconds [requests], in the same order."""

    ttft: tuple[FloatArray, FloatArray]
    tpot: tuple[FloatArray, FloatArray]
    e2e: tuple[FloatArray, FloatArray]
    num_preemptions: int


def profile(data: Path, run: Run) -> ProfiledStepTime:
    """Read a run's kernel times."""
    folder = data / run.name / "kernels"

    def rows(kind: str) -> list[list[str]]:
        with gzip.open(folder / f"tp{run.tp}_{kind}.csv.gz", "rt", encoding="utf-8") as file:
            return list(csv.reader(file))[1:]

    def named(kind: str) -> list[tuple[str, float, float]]:
        return [(name, float(size), float(us) * 1e-6) for name, size, us in rows(kind)]

    attention = np.array(rows("attention"), dtype=np.float64)
    attention[:, 4] *= 1e-6
    return ProfiledStepTime(
        named("dense"),
        named("per_sequence"),
        AttentionGrid(attention),
        num_layers=run.num_layers,
        all_reduce=run.all_reduce,
    )


def predict(data: Path, run: Run) -> Outcome:
    """Run the engine on a recorded run's arrivals."""
    meta = json.loads((data / run.name / "meta.json").read_text())
    lines = (data / run.name / "requests.jsonl").read_text().splitlines()
    measured = sorted(map(json.loads, lines), key=lambda request: request["queued_ts"])
    with gzip.open(data / run.workload, "rt", encoding="utf-8") as file:
        prompts = [json.loads(line)["input_tok_ids"] for line in file]
    limits = EngineLimits(
        meta["engine_kwargs"]["max_num_batched_tokens"], meta["engine_kwargs"]["max_num_seqs"]
    )
    num_blocks = meta.get("kv_cache", {}).get("num_gpu_blocks") or run.num_blocks
    # One of vLLM's blocks is its null block.
    core = EngineCore(KvManager(num_blocks - 1, BLOCK_SIZE_TOKENS), limits, profile(data, run))
    origin_s = measured[0]["queued_ts"]
    first_s: dict[str, float] = {}
    last_s: dict[str, float] = {}

    def advance(to_s: float) -> None:
        for generated in core.advance(to_s):
            first_s.setdefault(generated.request_id, generated.at_s)
            last_s[generated.request_id] = generated.at_s

    for request in measured:
        at_s = request["queued_ts"] - origin_s
        while core.next_event_s is not None and core.next_event_s < at_s:
            advance(core.next_event_s)
        core.add(_engine_request(request, prompts), at_s)
    advance(float("inf"))
    return _outcome(measured, origin_s, first_s, last_s, core.stats().num_preemptions)


def with_fitted_bandwidth(data: Path, run: Run) -> Run:
    """Return ``run`` with the all-reduce bandwidth that gives it the measured mean TPOT."""
    if run.all_reduce is None:
        return run
    low, high = run.all_reduce.bytes_per_s / 4, run.all_reduce.bytes_per_s * 4
    for _ in range(FIT_STEPS):
        middle = (low * high) ** 0.5
        tried = replace(run, all_reduce=replace(run.all_reduce, bytes_per_s=middle))
        real, own = predict(data, tried).tpot
        low, high = (middle, high) if own.mean() > real.mean() else (low, middle)
    return replace(run, all_reduce=replace(run.all_reduce, bytes_per_s=(low * high) ** 0.5))


def _engine_request(request: dict[str, Any], prompts: list[list[int]]) -> EngineRequest:
    tokens = prompts[int(request["request_id"].removeprefix("bench-"))]
    hashes, parent = [], 0
    for start in range(0, len(tokens) - BLOCK_SIZE_TOKENS + 1, BLOCK_SIZE_TOKENS):
        parent = hash((parent, tuple(tokens[start : start + BLOCK_SIZE_TOKENS])))
        hashes.append(parent)
    return EngineRequest(
        RequestId(request["request_id"]), request["input_toks"], request["output_toks"], hashes
    )


def _outcome(
    measured: list[dict[str, Any]],
    origin_s: float,
    first_s: dict[str, float],
    last_s: dict[str, float],
    num_preemptions: int,
) -> Outcome:
    queued = np.array([request["queued_ts"] for request in measured]) - origin_s
    real_first, real_last = (
        np.array([request[key] for request in measured]) - origin_s
        for key in ("first_token_ts", "last_token_ts")
    )
    own_first, own_last = (
        np.array([times[request["request_id"]] for request in measured])
        for times in (first_s, last_s)
    )
    gaps = np.array([request["output_toks"] - 1 for request in measured])
    many = gaps > 0
    return Outcome(
        ttft=(real_first - queued, own_first - queued),
        tpot=(
            (real_last - real_first)[many] / gaps[many],
            (own_last - own_first)[many] / gaps[many],
        ),
        e2e=(real_last - queued, own_last - queued),
        num_preemptions=num_preemptions,
    )


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="FOLDER")
    parser.add_argument("--html", type=Path, metavar="OUT", help="draw the errors' distribution")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"no runs at {args.data}; name their folder with --data", file=sys.stderr)
        return 2
    table = Table(title="Real vLLM 0.19 runs of 300 requests, predicted from kernel times")
    for heading in ("run", "", "measured", "predicted", "mean error", "|error| p50", "p90", "p99"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    errors = {}
    for recorded in RUNS:
        run = with_fitted_bandwidth(args.data, recorded)
        outcome = predict(args.data, run)
        if run.all_reduce is not None:
            fitted = run.all_reduce.bytes_per_s / 1e9
            table.caption = f"{run.name}: all-reduce at {fitted:.1f} GB/s, fitted on mean TPOT"
        for name, (real, own) in (
            ("TTFT", outcome.ttft),
            ("TPOT", outcome.tpot),
            ("E2E", outcome.e2e),
        ):
            error = np.abs(own / real - 1)
            errors[f"{name} {run.name}"] = error
            quantiles = [f"{value:.1%}" for value in np.quantile(error, [0.5, 0.9, 0.99])]
            table.add_row(
                run.name if name == "TTFT" else "",
                name,
                f"{real.mean():.3f} s",
                f"{own.mean():.3f} s",
                f"{own.mean() / real.mean() - 1:+.1%}",
                *quantiles,
            )
        table.add_section()
    Console(width=110).print(table)
    if args.html is not None:
        args.html.write_text(_page(errors), encoding="utf-8")
        print(f"plot: {args.html.resolve()}")
    return 0


def _page(errors: dict[str, FloatArray]) -> str:
    """Return a page with the share of requests within each error."""
    rows = []
    for name, error in errors.items():
        points = " ".join(
            f"{40 + 520 * min(value, 0.2) / 0.2:.1f},{130 - 110 * (rank + 1) / len(error):.1f}"
            for rank, value in enumerate(np.sort(error))
        )
        rows.append(
            f"<h2>{escape(name)}</h2>"
            f"<svg viewBox='0 0 600 160' role='img' aria-label='{escape(name)}'>"
            f"<path d='M40 20V130H560' fill='none' stroke='#888'/>"
            f"<polyline points='{points}' fill='none' stroke='#2563eb' stroke-width='2'/>"
            "<text x='40' y='150' font-size='11'>0 %</text>"
            "<text x='300' y='150' font-size='11' text-anchor='middle'>error of a request</text>"
            "<text x='560' y='150' font-size='11' text-anchor='end'>20 % or more</text>"
            "<text x='36' y='24' font-size='11' text-anchor='end'>100 %</text></svg>"
        )
    style = "body{font:15px system-ui;max-width:640px;margin:2em auto}h2{font-size:1em}"
    return (
        "<!DOCTYPE html><meta charset='utf-8'><title>Error per request</title>"
        f"<style>{style}</style><h1>Share of requests within an error</h1>{''.join(rows)}"
    )


if __name__ == "__main__":
    sys.exit(main())
