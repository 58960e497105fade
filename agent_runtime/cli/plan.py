"""``panjiu plan``: which layouts of a rack carry so many agent sessions."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from agent_runtime.cli.catalog_option import add_catalog_option, chosen_catalog
from agent_runtime.cli.rack_options import (
    add_ttft_boundary_option,
    natural_float,
    positive_float,
    positive_int,
)
from agent_runtime.errors import ConfigError
from agent_runtime.report.assumptions import assumptions
from agent_runtime.report.plan_image import IMAGE_SUFFIXES, write_plan_image
from agent_runtime.report.plan_json import plan_json
from agent_runtime.report.plan_page import plan_page
from agent_runtime.report.plan_table import advice_table, plan_heading, plan_table
from agent_runtime.report.plan_words import notes, recommendation
from hw_model.agent_load import AGENT_GAP, AgentLoad, ExponentialGap, Slo, ToolGap
from hw_model.capacity_plan import Plan, make_plan
from hw_model.layout_shapes import KV_PRECISIONS, Pins
from hw_model.planner import Ask
from hw_model.specs import Precision
from hw_model.ttft_boundary import TtftBoundary

DESCRIPTION = """\
Find the layouts of a rack that carry so many agent sessions: every degree of tensor, pipeline and
expert parallelism, weight precision, KV precision and number of replicas, estimated in closed form
and ranked. What meets the ask comes
first, fewest chips first; then what carries most. Each number is a band: base (low to high)."""

EXAMPLES = """\
examples:
  panjiu plan --sessions 300 --context 128k      300 coding agents at 128,000 tokens
  panjiu plan --model qwen3-8b --context 32k --sessions 2000 --slo-ttft 0.5 --plot plan.html
  panjiu plan --sessions 300 --precision fp8 --tp 8 --json
  panjiu plan --tool-gap 30 --append 4k          slow tools, large tool results

exit codes: 0 something meets the ask, 1 nothing does, 2 the command line is wrong
"""

_TOKENS = re.compile(r"(\d+(?:\.\d+)?)([kKmM]?)")
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000}
_WIDEST = 100
PAGE_SUFFIXES = (".html", ".htm")


def add_plan_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "plan",
        help="which layouts carry so many agent sessions, and what would carry more",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_load_options(parser)
    _add_machine_options(parser)
    group = parser.add_argument_group("the answer")
    group.add_argument(
        "--top", type=positive_int, default=8, metavar="N", help="layouts shown (default: 8)"
    )
    group.add_argument("--json", action="store_true", help="for machines (docs/plan.md)")
    group.add_argument(
        "--plot",
        metavar="OUT",
        help="write a self-contained page with charts (.html), or the charts (.png, .svg, .pdf)",
    )
    parser.set_defaults(run=run_plan)


def _add_load_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to carry")
    group.add_argument(
        "--sessions",
        type=positive_int,
        default=300,
        metavar="N",
        help="live at once (default: 300)",
    )
    group.add_argument(
        "--context",
        type=token_count,
        default=128_000,
        metavar="TOKENS",
        help="prompt of a typical turn, history included; k and M are thousands and millions "
        "(default: 128k)",
    )
    new = group.add_mutually_exclusive_group()
    new.add_argument(
        "--append",
        type=token_count,
        default=900,
        metavar="TOKENS",
        help="of those, new since the turn before (default: 900)",
    )
    new.add_argument(
        "--hit",
        type=_share,
        metavar="SHARE",
        help="the same as the share of the prompt found cached while a session is resident, 0 to 1",
    )
    group.add_argument(
        "--output", type=token_count, default=220, metavar="TOKENS", help="a turn (default: 220)"
    )
    group.add_argument(
        "--tool-gap",
        type=tool_gap,
        default="agent",
        metavar="GAP",
        help="between turns: mean seconds, or 'agent' for the gaps of coding agents, mean "
        f"{AGENT_GAP.mean_s:.1f} s (default: agent)",
    )
    _add_slo_options(group)


def _add_slo_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--slo-ttft",
        type=positive_float,
        default=2.0,
        metavar="S",
        help="most seconds to the first token, mean over turns (default: 2)",
    )
    add_ttft_boundary_option(group)
    group.add_argument(
        "--slo-tpot",
        type=positive_float,
        default=0.05,
        metavar="S",
        help="most seconds between tokens, likewise (default: 0.05)",
    )


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on what")
    group.add_argument(
        "--rack", default="panjiu-al128", metavar="NAME", help="(default: panjiu-al128)"
    )
    group.add_argument(
        "--model", default="qwen3-235b-a22b", metavar="NAME", help="(default: qwen3-235b-a22b)"
    )
    add_catalog_option(group)
    precisions = [precision.value for precision in Precision]
    group.add_argument(
        "--tp", type=positive_int, metavar="N", help="only this many chips a TP group"
    )
    group.add_argument("--pp", type=positive_int, metavar="N", help="only this many stages")
    group.add_argument(
        "--ep",
        type=positive_int,
        metavar="N",
        help="experts over this many chips only: 1 cuts each into TP slices; more than TP lets "
        "replicas share experts",
    )
    group.add_argument("--replicas", type=positive_int, metavar="N", help="only this many")
    group.add_argument("--precision", choices=precisions, help="of the weights, only this")
    group.add_argument(
        "--kv-precision",
        choices=precisions,
        help=f"of the KV, only this (default: {' and '.join(KV_PRECISIONS)})",
    )


def run_plan(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    if args.plot is not None:
        _check_plot(Path(args.plot))
    plan = _make_plan(_ask(args), args.top)
    command = shlex.join(["panjiu", *sys.argv[1:]])
    if args.plot is not None:
        _write_plot(plan, Path(args.plot), command)
    if args.json:
        sys.stdout.write(json.dumps(plan_json(plan), indent=2) + "\n")
        return 0 if plan.meets else 1
    console = Console()
    if console.width > _WIDEST:
        console = Console(width=_WIDEST)
    console.print(f"[bold]{plan_heading(plan.ask)}[/bold]", highlight=False)
    console.print(plan_table(plan))
    console.print(advice_table(plan))
    for sentence in recommendation(plan):
        console.print(sentence, highlight=False)
    for note in notes(plan):
        console.print(f"[dim]note: {note}[/dim]", highlight=False)
    if args.plot is not None:
        console.print(f"plot: {Path(args.plot).resolve()}", highlight=False, soft_wrap=True)
    return 0 if plan.meets else 1


def _check_plot(target: Path) -> None:
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"--plot {target}: not a file in an existing directory")
    suffixes = (*PAGE_SUFFIXES, *IMAGE_SUFFIXES)
    if target.suffix not in suffixes:
        raise ConfigError(f"--plot {target}: expected a name that ends in {', '.join(suffixes)}")


def _make_plan(ask: Ask, most_rows: int) -> Plan:
    console = Console(stderr=True)
    with Progress(
        TextColumn("layouts"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("", total=None)

        def on_layouts(more: int, total: int) -> None:
            bar.update(task, advance=more, total=total)

        return make_plan(ask, most_rows, on_layouts)


def _write_plot(plan: Plan, target: Path, command: str) -> None:
    if target.suffix in IMAGE_SUFFIXES:
        write_plan_image(plan, target)
    else:
        page = plan_page(plan, assumptions(plan.ask.rack, plan.ask.chip), command)
        target.write_text(page, encoding="utf-8")


def _ask(args: argparse.Namespace) -> Ask:
    catalog = chosen_catalog(args)
    rack = catalog.rack(args.rack)
    append = args.append
    if args.hit is not None:
        append = max(1, round(args.context * (1 - args.hit)))
    return Ask(
        rack=rack,
        chip=catalog.chip(rack.chip),
        model=catalog.model(args.model),
        load=AgentLoad(args.sessions, args.context, append, args.output, args.tool_gap),
        slo=Slo(args.slo_ttft, args.slo_tpot),
        pins=Pins(
            tp=args.tp,
            pp=args.pp,
            ep=args.ep,
            precision=None if args.precision is None else Precision(args.precision),
            kv_precision=None if args.kv_precision is None else Precision(args.kv_precision),
        ),
        num_replicas=args.replicas,
        ttft_boundary=TtftBoundary(args.ttft_boundary),
    )


def token_count(text: str) -> int:
    """Parse a number of tokens >= 1: ``900``, ``128k`` (128,000), ``1.5M``."""
    match = _TOKENS.fullmatch(text)
    tokens = round(float(match[1]) * _FACTORS[match[2].lower()]) if match else 0
    if tokens < 1:
        raise argparse.ArgumentTypeError(
            f"expected a number of tokens such as 900, 128k or 1.5M, got {text!r}"
        )
    return tokens


def tool_gap(text: str) -> ToolGap:
    """Parse ``agent`` or a mean in seconds."""
    if text == "agent":
        return AGENT_GAP
    try:
        return ExponentialGap(natural_float(text))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected 'agent' or a mean in seconds >= 0, got {text!r}"
        ) from None


def _share(text: str) -> float:
    value = natural_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return value
