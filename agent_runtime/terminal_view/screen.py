"""The whole screen: which parts there is room for, and what stands in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from agent_runtime.terminal_view.connection import Connection
from agent_runtime.terminal_view.header_lines import figure_lines, header_lines
from agent_runtime.terminal_view.look import Look, Panel
from agent_runtime.terminal_view.rack_state import RackPicture
from agent_runtime.terminal_view.replica_lines import grid_lines, named_replicas, replica_notes
from agent_runtime.terminal_view.session_lines import decision_line, waiting_line
from agent_runtime.terminal_view.strokes import (
    FAINT,
    FOCUS,
    LABEL,
    TITLE,
    Glyphs,
    fitted,
    section,
)

SIDE_BY_SIDE = 130
"""Columns from which waiting sessions and decisions stand beside each other."""
MIN_LIST = 3
"""Lines of a list that replicas leave room for."""
FEW_ROWS = 8
"""Rows of replicas that never are too many; more than half of what there is room for are."""
LIST_ALONE = 10
"""Lines of a list where nothing limits the height."""
KEYS = (
    ("q", "quit"), ("s", "sort"), ("space", "freeze"), ("tab", "panel"), ("j k", "scroll"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to draw on.

    Attributes:
        width: Columns.
        height: Lines; None for as many as it takes.
        glyphs: To draw with.
    """

    width: int
    height: int | None
    glyphs: Glyphs


@dataclass(frozen=True, slots=True)
class Screen:
    """What is on it.

    Attributes:
        lines: All as wide as the room, no more of them than it is high.
        look: As it was asked for, but scrolled no further than there is something.
    """

    lines: tuple[Text, ...]
    look: Look


def draw(picture: RackPicture, look: Look, connection: Connection | None, room: Room) -> Screen:
    """Return the screen; without a connection it has no line of keys."""
    width, glyphs = room.width, room.glyphs
    top = header_lines(picture, connection, width, glyphs, frozen=look.frozen)
    top += figure_lines(picture, width, glyphs)
    bottom = [] if connection is None else [_keys(connection, width)]
    body = _Body(picture, look, room)
    left = None if room.height is None else room.height - len(top) - len(bottom)
    lines = body.lines(left)
    if left is not None:
        lines = lines[: max(0, left)]
        lines += [Text(" " * width)] * (left - len(lines))
    whole = [*top, *lines, *bottom]
    return Screen(tuple(whole if room.height is None else whole[: room.height]), body.look)


class _Body:
    """The panels."""

    def __init__(self, picture: RackPicture, look: Look, room: Room) -> None:
        self._picture, self._room = picture, room
        self.look = look

    def lines(self, height: int | None) -> list[Text]:
        """Return replicas above the two lists, in a height."""
        width, beside = self._room.width, self._room.width >= SIDE_BY_SIDE
        num_lists = 1 if beside else 2
        below = num_lists * (1 + MIN_LIST)
        for_grid = len(self._picture.replicas) if height is None else max(1, height - below - 1)
        grid = self._grid(width, for_grid)
        if height is None:
            heights = [LIST_ALONE, LIST_ALONE]
        else:
            left = height - len(grid)
            heights = [left - 1] * 2 if beside else [(left + 1) // 2 - 1, left // 2 - 1]
        if not beside:
            return [*grid, *self._waiting(width, heights[0]), *self._decisions(width, heights[1])]
        half = width // 2
        left_lines = self._waiting(half, heights[0])
        right_lines = self._decisions(width - half, heights[1])
        empty = Text(" " * half)
        both = []
        for number in range(max(len(left_lines), len(right_lines))):
            one = left_lines[number] if number < len(left_lines) else empty
            other = right_lines[number] if number < len(right_lines) else Text()
            both.append(fitted(one.copy().append_text(other), width))
        return [*grid, *both]

    def _grid(self, width: int, max_rows: int) -> list[Text]:
        picture, glyphs = self._picture, self._room.glyphs
        replicas = named_replicas(picture, self.look.order)
        rows = grid_lines(replicas, width, max(FEW_ROWS, max_rows // 2), glyphs)
        title = f"{len(replicas):,} replicas by {self.look.order.value}"
        return self._panel(Panel.REPLICAS, (title, replica_notes(picture)), rows, max_rows, width)

    def _waiting(self, width: int, height: int) -> list[Text]:
        picture, glyphs = self._picture, self._room.glyphs
        rows = [waiting_line(row, picture, width, glyphs) for row in picture.waiting]
        title = "waiting longest" if rows else "nobody waits"
        notes = [Text("context, last replica", LABEL)] if rows else []
        return self._panel(Panel.WAITING, (title, notes), rows, height, width)

    def _decisions(self, width: int, height: int) -> list[Text]:
        picture, glyphs = self._picture, self._room.glyphs
        rows = [decision_line(entry, picture, width, glyphs) for entry in picture.recent]
        return self._panel(Panel.DECISIONS, ("latest decisions", []), rows, height, width)

    def _panel(
        self,
        panel: Panel,
        head: tuple[str, list[Text]],
        rows: Sequence[Text],
        height: int,
        width: int,
    ) -> list[Text]:
        """Return a panel's title and the rows in view; note how far it can be scrolled."""
        glyphs = self._room.glyphs
        if height < 0:
            return []
        offset = min(self.look.offset(panel), max(0, len(rows) - height))
        self.look = self.look.scrolled_to(panel, offset)
        title = Text(head[0], TITLE)
        if self._room.height is not None:
            if self.look.panel is panel:
                title.stylize(FOCUS)
            hidden = _hidden(offset, len(rows) - offset - height, glyphs)
            title.append(hidden, FAINT)
        shown = rows[offset : offset + height]
        return [section(title, head[1], width, glyphs), *shown]


def _hidden(above: int, below: int, glyphs: Glyphs) -> str:
    parts = [f" {glyphs.up}{above}"] if above > 0 else []
    parts += [f" {glyphs.down}{below}"] if below > 0 else []
    return "".join(parts)


def _keys(connection: Connection, width: int) -> Text:
    line = Text()
    for key, meaning in KEYS:
        line.append(f" {key} ", "reverse").append(f" {meaning}  ", LABEL)
    if connection.problem is not None:
        line = Text(f" {connection.problem}", LABEL)
    return fitted(line, width)
