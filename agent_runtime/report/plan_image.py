"""The charts of a capacity plan as a picture, for slides; needs the extra ``plot``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent_runtime.errors import ConfigError
from agent_runtime.report.plan_front import Pair, fronts
from agent_runtime.report.plan_table import plan_heading
from hw_model.capacity_plan import Plan
from hw_model.planner import Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGE_SUFFIXES = (".png", ".svg", ".pdf")


def write_plan_image(plan: Plan, target: Path) -> None:
    """Draw chips against mean TTFT and against sessions carried, and what no layout beats.

    Args:
        plan: What to draw.
        target: The file; its suffix is one of ``IMAGE_SUFFIXES``.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            f"--plot {target}: pictures need matplotlib: pip install 'panjiu[plot]', or ask for a "
            "page with --plot OUT.html"
        ) from None
    pairs = list(dict.fromkeys(candidate.shape.precisions for candidate in plan.candidates))
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle(plan_heading(plan.ask).replace("\n", " "), fontsize=9, wrap=True)
    left, right = figure.subplots(1, 2)
    resident = [c for c in plan.candidates if c.resident_sessions == plan.ask.load.sessions]
    _draw(left, resident, pairs, lambda c: c.estimate.ttft_s, lowest=True)
    left.set(title="mean TTFT, every session resident; base", ylabel="seconds", yscale="log")
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("{x:g}")
    left.axhline(plan.ask.slo.ttft_s, color="grey", linestyle="--", linewidth=1)
    _draw(right, plan.candidates, pairs, lambda c: float(c.carries), lowest=False)
    right.set(title="sessions carried within both SLOs; base", ylabel="sessions")
    right.axhline(plan.ask.load.sessions, color="grey", linestyle="--", linewidth=1)
    for axes in (left, right):
        axes.set_xlabel("chips")
        axes.grid(alpha=0.2)
    right.legend(fontsize=8, title="weights, KV")
    figure.savefig(target, dpi=150)


def _draw(
    axes: Axes,
    candidates: tuple[Candidate, ...] | list[Candidate],
    pairs: list[Pair],
    value: Callable[[Candidate], float],
    *,
    lowest: bool,
) -> None:
    placed = fronts(candidates, value, lowest=lowest)
    for number, pair in enumerate(pairs):
        colour, some = f"C{number}", placed.get(pair, [])
        chips = [each.candidate.num_chips for each in some]
        axes.scatter(chips, [each.value for each in some], s=4, color=colour, alpha=0.25)
        best = [each for each in some if each.on_front]
        axes.plot(
            [each.candidate.num_chips for each in best],
            [each.value for each in best],
            color=colour,
            marker="o",
            markersize=4,
            label=", ".join(pair),
        )
