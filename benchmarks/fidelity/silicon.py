"""Predicts measured serving benchmarks without any calibration: one set of constants for all rows.

    python benchmarks/fidelity/silicon.py [--data CSV] [--client NAME] [--html OUT] [--json]

The CSV holds mean TTFT and TPOT of vLLM on NVIDIA cards by model, precision, TP, prompt and output
length and number of clients (ai-dynamo/aiconfigurator, Apache-2.0). Every row is run through the
engine at band base by a client like the one that measured it. Nothing is fitted to a row, a model
or a card. Rows that can't be represented are counted by reason.

The client is InferenceX's (kimbochen/bench_serving): ten prompts a client, all clients start at
once, lengths are uniform in [0.8, 1] of the row's, and the means are over all requests, the first
burst included. ``--client steady`` has equal lengths and leaves the burst out instead.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.fidelity.inferencex_client import CLIENTS, Client, ClosedLoad, run_clients
from benchmarks.fidelity.ratio_page import Outcome, ratio_page
from hw_model.catalog import Catalog
from hw_model.claim import Band, Claim, Trust
from hw_model.deployment import HBM_UTILIZATION, DeploymentRequest, plan_deployment
from hw_model.engine.engine_core import EngineCore
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.errors import ConfigError
from hw_model.specs import ChipSpec, Precision, RackSpec
from hw_model.step_time import StepTimeModel
from hw_model.ttft_boundary import TtftBoundary

DEFAULT_DATA = Path(__file__).parents[3] / "shared" / "data" / "silicon_vllm_half.csv.gz"
CHIPS = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200", "b300_sxm": "b300"}
MODELS = {
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2.7",  # the same shape
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "moonshotai/Kimi-K2.5": "kimi-k2",  # the same shape
    "openai/gpt-oss-120b": "gpt-oss-120b",
}
PRECISIONS = {"": Precision.BF16, "fp8": Precision.FP8, "nvfp4": Precision.FP4}
FP8_KV = {("h200", "llama-3.1-70b"), ("b200", "llama-3.1-70b")}
"""What InferenceX's recipes start with ``kv-cache-dtype: fp8``. FP4 checkpoints of NVIDIA's ask for
it themselves. All others keep BF16."""

HBM_SHARE = {("minimax-m2.7", Precision.FP8): 0.95}
"""``gpu-memory-utilization`` of InferenceX's recipes where it is not vLLM's default."""

BLOCK_SIZE_TOKENS = 16
MAX_NUM_SEQS = 1024
"""vLLM's defaults on these cards."""

WORST = 10
Errors = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """A measured row that can be represented."""

    row_id: str
    chip: str
    model: str
    precision: Precision
    tp: int
    isl_tokens: int
    osl_tokens: int
    clients: int
    ttft_s: float
    tpot_s: float

    @property
    def group(self) -> tuple[str, str, str]:
        """Chip, model, precision."""
        return self.chip, self.model, self.precision.value


@dataclass(frozen=True, slots=True)
class Scale:
    """One number of every chip, changed."""

    field: str
    factor: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``FIELD=X``."""
        field, _, factor = text.partition("=")
        if field not in ChipSpec.model_fields:
            raise argparse.ArgumentTypeError(f"{field!r} is no number of a chip")
        return cls(field, float(factor))

    def applied(self, chip: ChipSpec) -> ChipSpec:
        """Return the chip with the number changed, if it has it."""
        claim = getattr(chip, self.field)
        if claim is None:
            return chip
        changed = claim.model_copy(update={"value": claim.value * self.factor})
        return chip.model_copy(update={self.field: changed})


def read_rows(data: Path) -> tuple[list[Row], Counter[str]]:
    """Return the rows that can be represented, and why others can't be, counted."""
    rows, left_out = [], Counter[str]()
    with gzip.open(data, "rt", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            reason = _unrepresentable(cells)
            if reason is not None:
                left_out[reason] += 1
                continue
            rows.append(
                Row(
                    row_id=cells["id"],
                    chip=CHIPS[cells["system"]],
                    model=MODELS[cells["model_path"]],
                    precision=PRECISIONS[cells["gemm_quant_mode"]],
                    tp=int(cells["tp_size"]),
                    isl_tokens=int(cells["isl"]),
                    osl_tokens=int(cells["osl"]),
                    clients=int(cells["batch_size"]),
                    ttft_s=float(cells["silicon_ttft_ms"]) / 1e3,
                    tpot_s=float(cells["silicon_tpot_ms"]) / 1e3,
                )
            )
    return rows, left_out


def _unrepresentable(cells: dict[str, str]) -> str | None:
    reason = _unknown(cells)
    if reason is not None:
        return reason
    chip, precision = CHIPS[cells["system"]], PRECISIONS[cells["gemm_quant_mode"]]
    if Catalog.packaged().chip(chip).flops_per_s(precision) is None:
        return f"{precision} weights, which {chip} does not compute with"
    return None


def _unknown(cells: dict[str, str]) -> str | None:
    if cells["mode"] != "agg":
        return "prefill and decode on separate cards"
    if cells["model_path"] not in MODELS:
        return f"model {cells['model_path']}"
    if cells["system"] not in CHIPS or not cells["tp_size"]:
        return f"card {cells['system']}, TP {cells['tp_size'] or 'unknown'}"
    if cells["gemm_quant_mode"] not in PRECISIONS:
        return f"{cells['gemm_quant_mode']} weights"
    expert_ranks = int(cells["moe_tp_size"] or 1) * int(cells["moe_ep_size"] or 1)
    if cells["attention_dp_size"] not in {"", "1"} or expert_ranks > int(cells["tp_size"]):
        return "data-parallel attention"
    return None


def predict(chip: ChipSpec, row: Row, client: Client) -> tuple[float, float] | None:
    """Return mean TTFT and TPOT in seconds; None if the model or a request does not fit."""
    count = Claim(value=row.tp, source="as measured", trust=Trust.MEASURED)
    rack = RackSpec(
        name="bench", title=chip.title, chip=chip.name, num_chips=count, domain_chips=count
    )
    fp8_kv = row.precision is Precision.FP4 or (row.chip, row.model) in FP8_KV
    request = DeploymentRequest(
        precision=row.precision,
        kv_precision=Precision.FP8 if fp8_kv else Precision.BF16,
        tp=row.tp,
        block_size_tokens=BLOCK_SIZE_TOKENS,
    )
    try:
        plan = plan_deployment(rack, chip, Catalog.packaged().model(row.model), request)
        share = HBM_SHARE.get((row.model, row.precision), HBM_UTILIZATION)
        more_bytes = (share - HBM_UTILIZATION) * chip.hbm_bytes.value
        more_blocks = int(more_bytes / (plan.kv_bytes_per_token * BLOCK_SIZE_TOKENS))
        core = EngineCore(
            KvManager(plan.kv_blocks + more_blocks, BLOCK_SIZE_TOKENS, enable_prefix_caching=False),
            EngineLimits(max_num_seqs=MAX_NUM_SEQS),
            StepTimeModel(plan, Band.BASE),
            progress=False,
        )
        front_end = TtftBoundary.CLIENT.front_end(chip, Band.BASE)
        front_end_s = front_end.before_engine_s(row.isl_tokens)
        load = ClosedLoad(row.isl_tokens, row.osl_tokens, row.clients)
        return run_clients(core, load, client, front_end_s)
    except ConfigError:
        return None


def _predict_named(job: tuple[Row, Client, Scale | None]) -> tuple[float, float] | None:
    row, client, scale = job
    chip = Catalog.packaged().chip(row.chip)
    return predict(chip if scale is None else scale.applied(chip), row, client)


def main() -> int:
    """Print the errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="CSV")
    parser.add_argument("--client", choices=CLIENTS, default="inferencex")
    parser.add_argument(
        "--scale",
        type=Scale.parse,
        metavar="FIELD=X",
        help="multiply one number of every chip, to see how much depends on it",
    )
    parser.add_argument(
        "--clients", type=int, metavar="N", help="rows of at most N clients, which are quick"
    )
    parser.add_argument("--json", action="store_true", help="overall figures for machines")
    parser.add_argument("--html", type=Path, metavar="OUT", help="draw predicted over measured")
    parser.add_argument("--csv", type=Path, metavar="OUT", help="write every row's prediction")
    args = parser.parse_args()
    if not args.data.exists():
        print(f"no rows at {args.data}; name the file with --data", file=sys.stderr)
        return 2
    rows, left_out = read_rows(args.data)
    rows = [row for row in rows if args.clients is None or row.clients <= args.clients]
    if not rows:
        print("none of the rows can be represented, or --clients leaves none", file=sys.stderr)
        return 2
    with ProcessPoolExecutor() as pool:
        jobs = ((row, CLIENTS[args.client], args.scale) for row in rows)
        answers = list(pool.map(_predict_named, jobs, chunksize=4))
    outcomes = [(row, own) for row, own in zip(rows, answers, strict=True) if own is not None]
    if len(outcomes) < len(rows):
        left_out["does not fit in our memory model"] = len(rows) - len(outcomes)
    errors = np.array([_errors(row, own) for row, own in outcomes])
    if args.csv is not None:
        _write(args.csv, outcomes)
    if args.html is not None:
        args.html.write_text(_page(outcomes), encoding="utf-8")
        print(f"plot: {args.html.resolve()}", file=sys.stderr)
    if args.json:
        print(json.dumps(_figures(errors)))
        return 0
    console = Console(width=120)
    console.print(_error_table([row for row, _ in outcomes], errors))
    for column, name in enumerate(("TTFT", "TPOT")):
        ranked = np.argsort(-np.abs(errors[:, column]))[:WORST]
        console.print(_worst_table(name, (outcomes[index] for index in ranked)))
    for reason, number in left_out.most_common():
        console.print(f"left out: {number} rows, {reason}", highlight=False)
    return 0


def _page(outcomes: list[tuple[Row, tuple[float, float]]]) -> str:
    charts: dict[str, Sequence[Outcome]] = {}
    for column, name in enumerate(("TTFT", "TPOT")):
        charts[name] = [
            Outcome(row.chip, " ".join(row.group), (row.ttft_s, row.tpot_s)[column], own[column])
            for row, own in outcomes
        ]
    return ratio_page("Uncalibrated predictions over measurements", charts)


def _errors(row: Row, own: tuple[float, float]) -> tuple[float, float]:
    return own[0] / row.ttft_s - 1, own[1] / row.tpot_s - 1


def _write(path: Path, outcomes: Iterable[tuple[Row, tuple[float, float]]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["id", "chip", "model", "precision", "tp", "isl", "osl", "clients"]
            + [f"{kind}{name}_ms" for kind in ("", "predicted_") for name in ("ttft", "tpot")]
        )
        for row, own in outcomes:
            seconds = (row.ttft_s, row.tpot_s, *own)
            shape = (row.tp, row.isl_tokens, row.osl_tokens, row.clients)
            writer.writerow((row.row_id, *row.group, *shape, *(f"{s * 1e3:.3f}" for s in seconds)))


def _figures(errors: Errors) -> dict[str, float]:
    figures: dict[str, float] = {"rows": len(errors)}
    for column, name in enumerate(("ttft", "tpot")):
        size = np.abs(errors[:, column])
        figures[f"{name}_median"] = float(np.median(size))
        figures[f"{name}_mean"] = float(size.mean())
        figures[f"{name}_bias"] = float(np.median(errors[:, column]))
    return figures


def _error_table(rows: Sequence[Row], errors: Errors) -> Table:
    table = Table(title="Uncalibrated predictions against measured rows, band base")
    for heading in ("card", "model", "weights"):
        table.add_column(heading)
    for heading in ("rows", "TPOT median", "mean", "bias", "TTFT median", "mean", "bias"):
        table.add_column(heading, justify="right")
    members: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        members[row.group].append(index)
    every = list(range(len(rows)))
    for group, indices in (*sorted(members.items()), (("all", "", ""), every)):
        figures = _figures(errors[indices])
        table.add_row(
            *group,
            str(len(indices)),
            *(
                f"{figures[f'{name}_{figure}']:{'+' if figure == 'bias' else ''}.0%}"
                for name in ("tpot", "ttft")
                for figure in ("median", "mean", "bias")
            ),
        )
    return table


def _worst_table(name: str, worst: Iterable[tuple[Row, tuple[float, float]]]) -> Table:
    table = Table(title=f"Worst rows by {name}")
    for heading in ("card, model, weights", "TP", "ISL", "OSL", "clients"):
        table.add_column(heading)
    for heading in ("TPOT measured", "predicted", "TTFT measured", "predicted"):
        table.add_column(heading, justify="right")
    for row, (ttft_s, tpot_s) in worst:
        numbers = (row.tp, row.isl_tokens, row.osl_tokens, row.clients)
        seconds = (row.tpot_s, tpot_s, row.ttft_s, ttft_s)
        table.add_row(
            " ".join(row.group),
            *(str(number) for number in numbers),
            *(f"{value * 1e3:,.1f} ms" for value in seconds),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
