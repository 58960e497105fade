"""Replicas as a grid of cells: KV as a bar, requests that run and wait, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from rich.text import Text

from agent_runtime.rack_view.messages import ReplicaRow
from agent_runtime.report import quantities
from agent_runtime.terminal_view.look import ReplicaOrder
from agent_runtime.terminal_view.rack_state import RackPicture
from agent_runtime.terminal_view.strokes import (
    FAINT,
    HEALTH_STYLES,
    LABEL,
    PERMILLE,
    STATE_STYLES,
    TITLE,
    Glyphs,
    clipped,
    fitted,
    kv_bar,
)

MAX_LABEL = 28
LOAD_WIDTH = 6
MIN_BAR = 7
MAX_CELL = 48
SHARE_FROM_BAR = 16
"""A cell with a bar of so many says the share in numbers too."""
UP, EMPTY = "up", "empty"
HAVE_KV = frozenset({UP, "draining"})


@dataclass(frozen=True, slots=True)
class NamedReplica:
    """A replica and what it is called."""

    number: int
    label: str
    gauges: ReplicaRow
    health: str


_ORDERS: Mapping[ReplicaOrder, Callable[[NamedReplica], float]] = MappingProxyType(
    {
        ReplicaOrder.NUMBER: lambda replica: replica.number,
        ReplicaOrder.QUEUE: lambda replica: (
            -(replica.gauges.waiting + replica.gauges.running / PERMILLE**2)
        ),
        ReplicaOrder.USED: lambda replica: -replica.gauges.used_permille,
        ReplicaOrder.ACTIVE: lambda replica: -replica.gauges.active_permille,
    }
)


def named_replicas(picture: RackPicture, order: ReplicaOrder) -> list[NamedReplica]:
    """Return the replicas that there are in an order; those alike stay in the layout's."""
    layout = picture.layout
    replicas = [
        NamedReplica(place.id, label_of(place.label), gauges, layout.healths[gauges.health])
        for place, gauges in zip(layout.replicas, picture.replicas, strict=True)
        if layout.healths[gauges.health] != EMPTY
    ]
    return sorted(replicas, key=_ORDERS[order])


def grid_lines(
    replicas: Sequence[NamedReplica], width: int, max_rows: int, glyphs: Glyphs
) -> list[Text]:
    """Return rows of cells, as wide as they can be with no more rows than asked for.

    If even the narrowest take more rows, all of those rows.
    """
    label_width = max((len(replica.label) for replica in replicas), default=1)
    narrowest = label_width + MIN_BAR + LOAD_WIDTH + 4
    most = max(1, width // narrowest)
    fewest = min(most, max(1, -(-width // MAX_CELL)))
    columns = next(
        (n for n in range(fewest, most) if -(-len(replicas) // n) <= max_rows),
        most,
    )
    cell_width = width // columns
    lines = []
    for start in range(0, len(replicas), columns):
        line = Text()
        for replica in replicas[start : start + columns]:
            line.append_text(_cell(replica, label_width, cell_width, glyphs))
        lines.append(fitted(line, width))
    return lines


def replica_notes(picture: RackPicture) -> list[Text]:
    """Return how all of them are, what matters most first."""
    layout, gauges = picture.layout, picture.replicas
    counts = Counter(layout.healths[one.health] for one in gauges)
    notes = [
        Text(f"{counts[health]:,} {health}", HEALTH_STYLES.get(health, LABEL))
        for health in layout.healths
        if counts[health] and health != UP
    ]
    there = [one for one in gauges if layout.healths[one.health] in HAVE_KV]
    if there:
        used = sum(one.used_permille for one in there) / len(there) / PERMILLE
        active = sum(one.active_permille for one in there) / len(there) / PERMILLE
        running, waiting = sum(one.running for one in there), sum(one.waiting for one in there)
        reckoned = ", reckoned" if layout.fill == "reckoned" else ""
        kv = f"KV {quantities.ratio(used)} used, {quantities.ratio(active)} active{reckoned}"
        notes += [Text(kv, LABEL), Text(f"{running:,} running, {waiting:,} waiting", LABEL)]
    return notes


def label_of(label: str) -> str:
    """Return what a replica is called, without the scheme of an engine's URL."""
    short = urlsplit(label).netloc if "://" in label else label
    return clipped(short or label, MAX_LABEL).rstrip()


def _cell(replica: NamedReplica, label_width: int, width: int, glyphs: Glyphs) -> Text:
    gauges, health = replica.gauges, replica.health
    style = HEALTH_STYLES.get(health, LABEL)
    cell = Text.assemble(" ", (f"{replica.label:>{label_width}}", style), " ")
    room = width - label_width - LOAD_WIDTH - 4
    share = f"{gauges.used_permille / 10:5.0f} %" if room >= SHARE_FROM_BAR else ""
    bar_width = max(1, room - len(share))
    if health in HAVE_KV:
        cell.append_text(kv_bar(gauges.used_permille, gauges.active_permille, bar_width, glyphs))
        cell.append(share, LABEL)
        cell.append(" ").append_text(_load(gauges, glyphs))
    else:
        cell.append(clipped(health, bar_width + len(share)), style)
    return fitted(cell, width)


def _load(gauges: ReplicaRow, glyphs: Glyphs) -> Text:
    running = f"{gauges.running}" if gauges.running else glyphs.separator
    waiting = f"+{gauges.waiting}" if gauges.waiting else ""
    gap = " " * max(0, LOAD_WIDTH - len(running) - len(waiting))
    return Text.assemble(
        gap,
        (running, TITLE if gauges.running else FAINT),
        (waiting, STATE_STYLES["prefill"]),
    )
