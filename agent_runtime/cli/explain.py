"""``panjiu explain``: why turns of a run went where they went, from its event log."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from agent_runtime.cli.rack_options import positive_int
from agent_runtime.errors import ConfigError
from agent_runtime.measurement.decision_explanation import read_stories, regret
from agent_runtime.measurement.turn_stories import TurnStory
from agent_runtime.report import quantities

DESCRIPTION = """\
Tell why turns of a run went where they went: what could have been done, what each way would have
cost in seconds, what was chosen, and how it came out. Reads the event log that 'panjiu simulate'
and 'panjiu run' write with --event-log."""

EXAMPLES = """\
examples:
  panjiu simulate --band base --event-log run.jsonl
  panjiu explain run.jsonl                      how predictions came out, and the worst of them
  panjiu explain run.jsonl --turn agent-3#7     one turn: candidates, costs, choice
"""

COSTS = ("wait_s", "move_s", "load_s", "prefill_s", "crowd_s", "decode_s", "loss_s")


def add_explain_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "explain",
        help="why turns of a run went where they went",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", metavar="RUN", help="the event log of a run")
    parser.add_argument("--turn", metavar="ID", help="one turn; ids are in the log")
    parser.add_argument(
        "--worst", type=positive_int, default=5, metavar="N", help="turns to list (default: 5)"
    )
    parser.set_defaults(run=run_explain)


def run_explain(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    path = Path(args.log)
    if not path.is_file():
        raise ConfigError(f"{args.log}: no such file; write one with simulate --event-log")
    stories = read_stories(args.log)
    console = Console()
    if args.turn is None:
        _print_regret(console, stories, args.worst)
        return 0
    story = stories.get(args.turn)
    if story is None:
        some = ", ".join(list(stories)[:3])
        raise ConfigError(f"--turn {args.turn}: not in {args.log}; turns there: {some}, ...")
    _print_story(console, story)
    return 0


def _print_regret(console: Console, stories: dict[str, TurnStory], num_worst: int) -> None:
    found = regret(stories.values(), num_worst)
    console.print(f"{len(stories):,} turns, {found.num_turns:,} of them with a receipt")
    if not found.num_turns:
        console.print("the run's policy gives no receipts; panjiu does")
        return
    console.print(
        f"to the first token from the choice on: {quantities.seconds(found.predicted_s)} "
        f"predicted, {quantities.seconds(found.realised_s)} realised in all "
        f"({found.realised_s / max(found.predicted_s, 1e-9):.2f}x); "
        f"{found.num_underestimated:,} turns took more than twice as long"
    )
    table = Table("turn", "replica", "held", "predicted", "realised", box=box.SIMPLE_HEAD)
    for story in found.worst:
        table.add_row(
            story.turn,
            str(story.replica),
            quantities.seconds(story.held_s),
            quantities.seconds(story.predicted_s),
            quantities.seconds(story.realised_s),
        )
    console.print(table)


def _print_story(console: Console, story: TurnStory) -> None:
    console.print(f"[bold]{story.turn}[/bold] of {story.session}: {story.prompt_tokens:,} tokens")
    console.print(f"arrived at {story.arrived_s:.3f} s")
    holds = [entry for entry in story.receipts if entry[1].chosen is None]
    if holds:
        console.print(
            f"held for {quantities.seconds(story.held_s)}: no replica had a place worth its cost, "
            f"looked at {len(holds)} times"
        )
    if story.choice is not None:
        at_s, receipt = story.choice
        due = ", for it had been held long enough" if receipt.is_due else ""
        console.print(f"sent to replica {receipt.chosen} at {at_s:.3f} s{due}")
        table = Table("replica", *(name[:-2] for name in COSTS), "in all", box=box.SIMPLE_HEAD)
        for option in sorted(receipt.options, key=lambda option: option.seconds):
            mark = "*" if option.replica_id == receipt.chosen else ""
            costs = [getattr(option, name) for name in COSTS]
            cells = [quantities.seconds(cost) for cost in (*costs, option.seconds)]
            table.add_row(f"{option.replica_id}{mark}", *cells)
        console.print(table)
    elif story.replica is not None:
        console.print(f"sent to replica {story.replica}; its policy gives no receipts")
    if story.ttft_s is not None:
        realised = (
            f"; from the choice on {quantities.seconds(story.predicted_s)} predicted, "
            f"{quantities.seconds(story.realised_s)} realised"
            if story.predicted_s is not None
            else ""
        )
        console.print(
            f"first token after {quantities.seconds(story.ttft_s)}, {story.cached_tokens:,} tokens "
            f"found there{realised}"
        )
