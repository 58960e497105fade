"""What pictures are made of: bars, sparklines, the colours of states, lines of a width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

PERMILLE = 1000

TITLE = "bold"
LABEL = "grey62"
FAINT = "grey42"
ALARM = "bold #ff5f5f"
FOCUS = "bold #5fd7ff"
ACTIVE = "#5fd7ff"
USED = "#3a6ea5"
FREE = "grey27"
STATE_STYLES = {"held": "#ff5f5f", "prefill": "#ffaf00", "decode": "#5fd787", "gap": "grey46"}
HEALTH_STYLES = {"down": ALARM, "draining": "#ffaf00", "empty": FAINT}
OTHER_STYLE = "#af87ff"
"""Of states that are not known here."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What bars are drawn with.

    Attributes:
        active, used, free: Of KV: that running turns hold, that is kept besides, that is empty.
        half: Half a cell of ``active``, or empty for none.
        rule: Lines between parts.
        levels: Of a sparkline, from nothing to the most.
        dot, arrow, swap, pause, up, down, missing: Signs.
    """

    active: str
    used: str
    free: str
    rule: str
    levels: str
    dot: str
    arrow: str
    swap: str
    pause: str
    up: str
    down: str
    separator: str


UNICODE = Glyphs(
    active="\N{BLACK SQUARE}",
    used="\N{WHITE SQUARE}",
    free="\N{MIDDLE DOT}",
    rule="\N{BOX DRAWINGS LIGHT HORIZONTAL}",
    levels=" \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588",
    dot="\N{BLACK CIRCLE}",
    arrow="\N{RIGHTWARDS ARROW}",
    swap="\N{LEFT RIGHT ARROW}",
    pause="\N{DOUBLE VERTICAL LINE}",
    up="\N{UPWARDS ARROW}",
    down="\N{DOWNWARDS ARROW}",
    separator="\N{MIDDLE DOT}",
)
ASCII = Glyphs(
    active="#", used="=", free=".", rule="-", levels=" .:-=+*#", dot="*", arrow=">", swap="~",
    pause="=", up="^", down="v", separator="-",
)  # fmt: skip


def kv_bar(used_permille: int, active_permille: int, width: int, glyphs: Glyphs) -> Text:
    """Return what of a replica's KV is held by running turns, kept besides, and empty.

    Of what is held a cell is shown, however little it is, and of what is empty, too.
    """
    active = _cells(active_permille, width)
    used = max(active, _cells(used_permille, width))
    return Text.assemble(
        (glyphs.active * active, ACTIVE),
        (glyphs.used * (used - active), USED),
        (glyphs.free * (width - used), FREE),
    )


def sparkline(values: Sequence[float], width: int, glyphs: Glyphs, style: str) -> Text:
    """Return the last values, the newest at the right, as high as they are beside the greatest."""
    shown = values[-width:] if width > 0 else ()
    most, top = max(shown, default=0.0), len(glyphs.levels) - 1
    cells = "".join(
        glyphs.levels[0 if value <= 0 or most <= 0 else max(1, round(top * value / most))]
        for value in shown
    )
    return Text(cells.rjust(width), style)


def stacked_line(parts: Iterable[tuple[int, str]], width: int, glyph: str) -> Text:
    """Return a line of all parts, each as long as its share; the largest gives what others need."""
    present = [(count, style) for count, style in parts if count > 0]
    total = sum(count for count, _ in present)
    if total == 0 or width < len(present):
        return Text(glyph * width, FREE)
    cells = [max(1, round(width * count / total)) for count, _ in present]
    while sum(cells) != width:
        step = 1 if sum(cells) < width else -1
        cells[cells.index(max(cells))] += step
    line = Text()
    for num_cells, (_, style) in zip(cells, present, strict=True):
        line.append(glyph * num_cells, style)
    return line


def section(title: Text, notes: Sequence[Text], width: int, glyphs: Glyphs) -> Text:
    """Return a part's title at the left, notes at the right, and a line between them.

    Where there is no room for all notes, the first ones.
    """
    for num_shown in range(len(notes), -1, -1):
        note = joined(notes[:num_shown], f" {glyphs.separator} ")
        room = width - title.cell_len - note.cell_len - 7
        if room >= 0:
            break
    else:
        note, room = Text(), 0
    line = Text.assemble((glyphs.rule * 2 + " ", FREE), title, " ")
    if not note.cell_len:
        return fitted(line.append(glyphs.rule * width, FREE), width)
    line.append(glyphs.rule * (room + 1), FREE)
    return fitted(line.append(" ").append_text(note).append(f" {glyphs.rule}", FREE), width)


def both_ends(left: Text, right: Text, width: int) -> Text:
    """Return a line with something at either end; the left gives way."""
    left = left.copy()
    left.truncate(max(0, width - right.cell_len - 1), overflow="ellipsis")
    gap = max(0, width - left.cell_len - right.cell_len)
    return fitted(left.append(" " * gap).append_text(right), width)


def fitted(line: Text, width: int) -> Text:
    """Return a line of exactly a width."""
    line = line.copy()
    line.truncate(width, overflow="crop", pad=True)
    return line


def joined(parts: Iterable[Text], separator: str) -> Text:
    """Return what is there, separated."""
    return Text(separator, FAINT).join([part for part in parts if part.cell_len])


def shown(text: str) -> str:
    """Return text from somebody else with nothing in it that a terminal would obey."""
    return "".join(one if one.isprintable() else "?" for one in text)


def clipped(text: str, width: int, *, right: bool = False) -> str:
    """Return text in a column: cut where it is too long, at the left or at the right of it."""
    line = Text(shown(text))
    line.truncate(width, overflow="ellipsis")
    gap = " " * (width - line.cell_len)
    return gap + line.plain if right else line.plain + gap


def _cells(permille: int, width: int) -> int:
    """Return how many cells a share takes: one at least of anything, all only of everything."""
    cells = round(width * permille / PERMILLE)
    if permille > 0:
        cells = max(1, cells)
    return min(cells, width if permille >= PERMILLE else width - 1) if width > 1 else cells
