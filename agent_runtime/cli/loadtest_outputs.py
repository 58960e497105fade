"""What ``loadtest`` leaves: tables, JSON, a row a turn, a page."""

from __future__ import annotations

import argparse
import csv
import math
import shlex
import sys
from pathlib import Path

from rich.console import Console

from agent_runtime.errors import ConfigError
from agent_runtime.load_test.load_log import LoadLog
from agent_runtime.load_test.summary import LoadSummary, Window
from agent_runtime.load_test.turn_record import TurnRecord
from agent_runtime.report.load_page import load_page
from agent_runtime.report.load_table import print_load

TARGETS = ("json", "csv", "html")
TIMES = ("due_s", "sent_s", "first_s", "last_s", "ended_s")
COUNTS = (
    "wanted_prompt_tokens",
    "prompt_tokens",
    "cached_tokens",
    "wanted_output_tokens",
    "output_tokens",
)


def check_load_outputs(args: argparse.Namespace) -> None:
    """Fail before the work and not after it.

    Raises:
        ConfigError: A target that can't be a file.
    """
    for name in TARGETS:
        target = getattr(args, name, None)
        if target is None or (target == "-" and name == "json"):
            continue
        path = Path(target)
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError(f"--{name} {target}: not a file in an existing directory")


def leave_load(summary: LoadSummary, log: LoadLog, args: argparse.Namespace) -> None:
    """Print what there is and write what was asked for."""
    console = Console(stderr=args.json == "-")
    print_load(console, summary)
    if args.json is not None:
        text = summary.model_dump_json(indent=2) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
        else:
            Path(args.json).write_text(text, encoding="utf-8")
    if args.csv is not None:
        _write_turns(Path(args.csv), log, summary.window)
    if args.html is not None:
        page = load_page(summary, shlex.join(["panjiu", *sys.argv[1:]]))
        Path(args.html).write_text(page, encoding="utf-8")
        console.print(f"page: {Path(args.html).resolve()}", highlight=False, soft_wrap=True)


def _write_turns(target: Path, log: LoadLog, window: Window) -> None:
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["session", "turn", "counts", *TIMES, "ttft_s", "tpot_s", "e2e_s", *COUNTS, "error"]
        )
        for turn in log.turns:
            writer.writerow(_row(turn, is_due=window.holds(turn.due_s)))


def _row(turn: TurnRecord, *, is_due: bool) -> list[object]:
    times = (*(getattr(turn, name) for name in TIMES), turn.ttft_s, turn.tpot_s, turn.e2e_s)
    error = turn.error if turn.is_finished else "unfinished"
    return [
        turn.session_id,
        turn.turn,
        int(is_due),
        *("" if math.isnan(value) else f"{value:.6f}" for value in times),
        *("" if (value := getattr(turn, name)) is None else value for name in COUNTS),
        error or "",
    ]
