"""What an overload came to, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from benchmarks.gateway.overload_load import OK, REFUSED, Phase, Seen

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PhaseSummary:
    """One phase.

    Attributes:
        name: Of it.
        offered: New sessions.
        let_in: First turns that were answered, of those that came back too.
        refused: 429s.
        came_back, kept: Sessions that came back when told, and those of them that were let in.
        p50_s, p99_s: To the first token of turns that were let in; 0 where there were none.
        most_waiting, most_held: Newcomers in the line; turns that the scheduler held.
        most_resident_bytes, most_tasks, most_fds: Of the gateway.
    """

    name: str
    offered: int
    let_in: int
    refused: int
    came_back: int
    kept: int
    p50_s: float
    p99_s: float
    most_waiting: float
    most_held: float
    most_resident_bytes: float
    most_tasks: float
    most_fds: float


def summarise(seen: Seen, phase: Phase) -> PhaseSummary:
    """Return what came of a phase; requests count where they were asked."""
    from_s = seen.phase_began_s[phase.name]
    until_s = from_s + phase.seconds
    asked = [one for one in seen.asked if from_s <= one.at_s < until_s]
    levels = [one for one in seen.levels if from_s <= one.at_s < until_s]
    came_back = [one for one in asked if one.attempt]
    admitted_s = [one.took_s for one in asked if one.status == OK]
    p50_s, p99_s = np.percentile(admitted_s, [50, 99]) if admitted_s else (0.0, 0.0)
    return PhaseSummary(
        phase.name,
        sum(from_s <= at_s < until_s for at_s in seen.begun_s),
        sum(one.status == OK and one.turn == 0 for one in asked),
        sum(one.status == REFUSED for one in asked),
        len(came_back),
        sum(one.status == OK for one in came_back),
        float(p50_s),
        float(p99_s),
        max((one.waiting_newcomers for one in levels), default=0.0),
        max((one.held_turns for one in levels), default=0.0),
        max((one.resident_bytes for one in levels), default=0.0),
        max((one.tasks for one in levels), default=0.0),
        max((one.open_fds for one in levels), default=0.0),
    )


def recovery_s(seen: Seen, calm: Phase, after: Phase) -> float | None:
    """Return when all was as before, in seconds from the beginning of the phase ``after``.

    That is the first look at a line no longer than it was while it was calm (2 at least, as agents
    come by chance) after which nobody was turned away. None if that was never so.
    """
    began_s = seen.phase_began_s[after.name]
    calm_line = max(summarise(seen, calm).most_waiting, 2)
    refused = [one.at_s for one in seen.asked if one.at_s >= began_s and one.status == REFUSED]
    from_s = max(refused, default=began_s)
    well = [o.at_s for o in seen.levels if o.at_s >= from_s and o.waiting_newcomers <= calm_line]
    return min(well) - began_s if well else None


def phase_table(summaries: Sequence[PhaseSummary]) -> Table:
    """Return them as a table."""
    table = Table(box=None)
    table.add_column("phase")
    for heading in (
        "new\nsessions", "let in", "refused", "came back\nlet in", "TTFT s\np50 / p99",
        "line, held\nat most", "RSS MiB\nat most", "tasks, fds\nat most",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for one in summaries:
        table.add_row(
            one.name,
            f"{one.offered:,}",
            f"{one.let_in:,}",
            f"{one.refused:,}",
            f"{one.kept} of {one.came_back}",
            f"{one.p50_s:.2f} / {one.p99_s:.2f}",
            f"{one.most_waiting:.0f}, {one.most_held:.0f}",
            f"{one.most_resident_bytes / MIB:.0f}",
            f"{one.most_tasks:.0f}, {one.most_fds:.0f}",
        )
    return table


def timeline(seen: Seen, every_s: float) -> Table:
    """Return the gateway's levels over time."""
    table = Table("s", box=None)
    for heading in ("line", "held", "sessions", "RSS MiB"):
        table.add_column(heading, justify="right")
    next_s = 0.0
    for one in seen.levels:
        if one.at_s >= next_s:
            next_s = one.at_s + every_s
            table.add_row(
                f"{one.at_s:.0f}",
                f"{one.waiting_newcomers:.0f}",
                f"{one.held_turns:.0f}",
                f"{one.sessions:.0f}",
                f"{one.resident_bytes / MIB:.0f}",
            )
    return table
