"""Predicts measured serving benchmarks without any calibration: one set of constants for all rows.

    python benchmarks/fidelity/silicon.py [--data CSV] [--spread X] [--json]

The CSV holds measured mean TTFT and TPOT of vLLM on H100, H200 and B200 by model, precision, TP,
prompt and output length and number of clients (ai-dynamo/aiconfigurator, Apache-2.0). Every row is
run through the engine at band base: a closed loop of that many clients. Nothing is fitted to a row,
a model or a card. Rows that can't be represented are counted by reason.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hw_model.calibration import Measurement, predict
from hw_model.catalog import Catalog
from hw_model.errors import ConfigError
from hw_model.specs import Precision

DEFAULT_DATA = Path(__file__).parents[3] / "shared" / "data" / "silicon_vllm_half.csv.gz"
CHIPS = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200"}
MODELS = {
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2.7",  # the same shape
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
}
PRECISIONS = {"": Precision.BF16, "fp8": Precision.FP8, "nvfp4": Precision.FP4}
WORST = 8


@dataclass(frozen=True)
class Row:
    """A measured row that can be represented."""

    chip: str
    measurement: Measurement

    @property
    def group(self) -> tuple[str, str, str]:
        """Chip, model, precision."""
        return self.chip, self.measurement.model.name, self.measurement.precision.value


def read_rows(data: Path, spread: float) -> tuple[list[Row], Counter[str]]:
    """Return the rows that can be represented, and why others can't be, counted."""
    catalog = Catalog.packaged()
    rows, left_out = [], Counter[str]()
    with gzip.open(data, "rt", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            reason = _unrepresentable(cells)
            if reason is not None:
                left_out[reason] += 1
                continue
            quantised = cells["gemm_quant_mode"] or ("fp8" if cells["precision"] == "fp8" else "")
            measurement = Measurement(
                model=catalog.model(MODELS[cells["model_path"]]),
                precision=PRECISIONS[quantised],
                tp=int(cells["tp_size"]),
                isl_tokens=int(cells["isl"]),
                osl_tokens=int(cells["osl"]),
                concurrency=int(cells["batch_size"]),
                ttft_s=float(cells["silicon_ttft_ms"]) / 1e3,
                tpot_s=float(cells["silicon_tpot_ms"]) / 1e3,
                spread=spread,
            )
            rows.append(Row(CHIPS[cells["system"]], measurement))
    return rows, left_out


def _unrepresentable(cells: dict[str, str]) -> str | None:
    if cells["mode"] != "agg":
        return "prefill and decode on separate cards"
    if cells["model_path"] not in MODELS:
        return f"model {cells['model_path']}"
    if cells["system"] not in CHIPS:
        return f"card {cells['system']}"
    quantised = cells["gemm_quant_mode"]
    if quantised not in PRECISIONS or (quantised == "nvfp4" and cells["system"] != "b200_sxm"):
        return f"{quantised} weights on {cells['system']}"
    if cells["attention_dp_size"] not in {"", "1"}:
        return "data-parallel attention"
    return None


def main() -> int:
    """Print the errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="CSV")
    parser.add_argument(
        "--spread", type=float, default=0.0, help="of lengths; 0: all equal (default)"
    )
    parser.add_argument("--json", action="store_true", help="overall figures for machines")
    args = parser.parse_args()
    if not args.data.exists():
        print(f"no rows at {args.data}; name the file with --data", file=sys.stderr)
        return 2
    rows, left_out = read_rows(args.data, args.spread)
    chips = Catalog.packaged()
    errors: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    outcomes = []
    for row in track(rows, console=Console(stderr=True), transient=True):
        try:
            own = predict(chips.chip(row.chip), row.measurement)
        except ConfigError:
            left_out["does not fit in our memory model"] += 1
            continue
        real = row.measurement
        pair = (own.ttft_s / real.ttft_s - 1, own.tpot_s / real.tpot_s - 1)
        errors[row.group].append(pair)
        outcomes.append((abs(pair[1]), row, own.tpot_s))
    every = np.array([pair for group in errors.values() for pair in group])
    if args.json:
        print(json.dumps(_figures(every)))
        return 0
    console = Console(width=110)
    console.print(_error_table(errors, every))
    console.print(_worst_table(sorted(outcomes, key=lambda item: -item[0])[:WORST]))
    for reason, count in left_out.most_common():
        console.print(f"left out: {count} rows, {reason}", highlight=False)
    return 0


def _figures(errors: np.ndarray) -> dict[str, float]:
    ttft, tpot = np.abs(errors[:, 0]), np.abs(errors[:, 1])
    return {
        "rows": len(errors),
        "ttft_median": float(np.median(ttft)),
        "ttft_mean": float(ttft.mean()),
        "tpot_median": float(np.median(tpot)),
        "tpot_mean": float(tpot.mean()),
        "tpot_bias": float(np.median(errors[:, 1])),
    }


def _error_table(
    errors: dict[tuple[str, str, str], list[tuple[float, float]]], every: np.ndarray
) -> Table:
    table = Table(title="Uncalibrated predictions against measured rows, band base")
    for heading in ("card", "model", "weights", "rows"):
        table.add_column(heading)
    for heading in ("TPOT |e| median", "mean", "bias", "TTFT |e| median", "mean"):
        table.add_column(heading, justify="right")
    for group, pairs in (*sorted(errors.items()), (("all", "", ""), every)):
        figures = _figures(np.array(pairs))
        table.add_row(
            *group,
            str(int(figures["rows"])),
            f"{figures['tpot_median']:.0%}",
            f"{figures['tpot_mean']:.0%}",
            f"{figures['tpot_bias']:+.0%}",
            f"{figures['ttft_median']:.0%}",
            f"{figures['ttft_mean']:.0%}",
        )
    return table


def _worst_table(worst: list[tuple[float, Row, float]]) -> Table:
    table = Table(title="Worst rows by TPOT")
    for heading in ("card, model, weights", "TP", "ISL", "OSL", "clients", "measured", "predicted"):
        table.add_column(heading)
    for _, row, tpot_s in worst:
        real = row.measurement
        numbers = (real.tp, real.isl_tokens, real.osl_tokens, real.concurrency)
        table.add_row(
            " ".join(row.group),
            *(str(number) for number in numbers),
            f"{real.tpot_s * 1e3:.1f} ms",
            f"{tpot_s * 1e3:.1f} ms",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
