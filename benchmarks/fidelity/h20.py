"""Predicts published H20 measurements blind: the card nearest to the M890's class.

    python benchmarks/fidelity/h20.py

Two tables. TTFT of Qwen3-235B-A22B in BF16 on 8 x H20-3e by prompt length, one request at a time,
no chunking (kvcache-ai/Mooncake, docs/source/performance/sglang/sglang-benchmark-results-v1.md).
And the speed of Qwen3 models with 2,048 output tokens by prompt length (QwenLM/Qwen3,
docs/source/getting_started/speed_benchmark.md, SGLang 0.4.6, H20-96G): its dense BF16 rows imply a
third of the card's bandwidth, so what counts there is the shape over the prompt length.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.fidelity.ratio_page import Outcome, ratio_page
from hw_model.catalog import Catalog
from hw_model.claim import Band, Claim, Trust
from hw_model.deployment import DeploymentRequest, plan_deployment
from hw_model.engine.solo_turn import solo_turn_s
from hw_model.specs import Precision, RackSpec
from hw_model.step_time import StepTimeModel

UNCHUNKED = 1 << 30
OUTPUT_TOKENS = 2048
TTFT_MS = {
    128: 129.21,
    512: 133.91,
    1024: 125.84,
    2048: 172.05,
    4096: 304.02,
    8192: 591.14,
    16384: 1305.15,
    32768: 3260.14,
}
PROMPTS = (1, 6144, 14336, 30720, 63488, 129024)
SPEEDS = {
    ("qwen3-8b", Precision.BF16, 1): (81.73, 296.25, 524.70, 832.67, 1112.78, 1173.32),
    ("qwen3-8b", Precision.FP8, 1): (150.25, 516.64, 859.92, 1242.24, 1476.46, 1393.21),
    ("qwen3-30b-a3b", Precision.BF16, 1): (137.18, 490.10, 849.62, 1283.94, 1538.79, 1385.65),
    ("qwen3-30b-a3b", Precision.FP8, 1): (155.55, 551.34, 945.13, 1405.91, 1647.89, 1442.14),
    ("qwen3-235b-a22b", Precision.BF16, 8): (74.50, 289.03, 546.73, 979.41, 1493.91, 1639.54),
    ("qwen3-235b-a22b", Precision.FP8, 4): (71.65, 275.16, 514.23, 887.90, 1269.34, 1319.66),
}


def step_time(chip: str, model: str, precision: Precision, tp: int, band: Band) -> StepTimeModel:
    """Return step times of one TP group of a chip."""
    catalog = Catalog.packaged()
    chips = Claim(value=tp, source="as measured", trust=Trust.MEASURED)
    rack = RackSpec(name="node", title="node", chip=chip, num_chips=chips, domain_chips=chips)
    request = DeploymentRequest(precision=precision, tp=tp)
    spec = catalog.chip(chip)
    return StepTimeModel(
        plan_deployment(rack, spec, catalog.model(model), request, band=band), band
    )


def seconds(model: StepTimeModel, prompt: int, output: int) -> float:
    """Return the seconds of one request alone."""
    return solo_turn_s(
        model,
        num_prompt_tokens=prompt,
        num_cached_tokens=0,
        num_output_tokens=output,
        max_num_batched_tokens=UNCHUNKED,
    )


def ttft_table() -> Table:
    """Compare TTFT by prompt length."""
    models = [step_time("h20-3e", "qwen3-235b-a22b", Precision.BF16, 8, band) for band in Band]
    table = Table(title="TTFT, Qwen3-235B-A22B BF16, 8 x H20-3e, one request")
    for heading in ("prompt", "measured", "low", "base", "high", "base error"):
        table.add_column(heading, justify="right")
    errors = []
    for prompt, measured_ms in TTFT_MS.items():
        own = [seconds(model, prompt, 1) * 1e3 for model in models]
        errors.append(own[1] / measured_ms - 1)
        times = [f"{value:.0f} ms" for value in (measured_ms, *own)]
        table.add_row(f"{prompt:,}", *times, f"{errors[-1]:+.0%}")
    table.caption = f"base: median |error| {np.median(np.abs(errors)):.0%}"
    return table


def speed_table() -> Table:
    """Compare the time of a request with 2,048 output tokens, absolute and by its shape."""
    table = Table(title="(prompt + 2,048) / time, Qwen3 on H20-96G: predicted / measured, base")
    table.add_column("model")
    for prompt in PROMPTS:
        table.add_column(f"{prompt:,}", justify="right")
    table.add_column("shape error", justify="right")
    for (name, precision, tp), speeds in SPEEDS.items():
        model = step_time("h20", name, precision, tp, Band.BASE)
        ratios = np.array(
            [
                (prompt + OUTPUT_TOKENS) / seconds(model, prompt, OUTPUT_TOKENS) / speed
                for prompt, speed in zip(PROMPTS, speeds, strict=True)
            ]
        )
        shape = np.abs(ratios / np.exp(np.log(ratios).mean()) - 1)
        table.add_row(
            f"{name} {precision} TP{tp}",
            *(f"{ratio:.2f}" for ratio in ratios),
            f"{shape.mean():.0%}",
        )
    table.caption = "shape error: mean |deviation| from the row's own mean ratio"
    return table


def _page() -> str:
    """Return a page with every figure: TTFT, and the time of a request with 2,048 output tokens."""
    ttft = [
        Outcome(f"band {band}", f"{prompt:,} tokens", measured_ms / 1e3, seconds(model, prompt, 1))
        for band in Band
        for model in [step_time("h20-3e", "qwen3-235b-a22b", Precision.BF16, 8, band)]
        for prompt, measured_ms in TTFT_MS.items()
    ]
    requests = [
        Outcome(
            f"{name} {precision} TP{tp}",
            f"{prompt:,} tokens",
            (prompt + OUTPUT_TOKENS) / speed,
            seconds(model, prompt, OUTPUT_TOKENS),
        )
        for (name, precision, tp), speeds in SPEEDS.items()
        for model in [step_time("h20", name, precision, tp, Band.BASE)]
        for prompt, speed in zip(PROMPTS, speeds, strict=True)
    ]
    charts = {"TTFT, 8 x H20-3e": ttft, "2,048 output tokens, H20-96G, base": requests}
    return ratio_page("Blind predictions over published H20 figures", charts)


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--html", type=Path, metavar="OUT", help="draw predicted over measured")
    args = parser.parse_args()
    console = Console(width=110)
    if args.html is not None:
        args.html.write_text(_page(), encoding="utf-8")
        print(f"plot: {args.html.resolve()}")
    console.print(ttft_table())
    console.print(speed_table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
