"""Sessions that wait longest, and what was decided last, a line each."""

from __future__ import annotations

from rich.text import Text

from agent_runtime.rack_view.messages import LatestRow, MoveRow, SessionRow
from agent_runtime.report import quantities
from agent_runtime.terminal_view.rack_state import RackPicture
from agent_runtime.terminal_view.strokes import (
    FAINT,
    LABEL,
    OTHER_STYLE,
    STATE_STYLES,
    USED,
    Glyphs,
    clipped,
    fitted,
)

NOTABLE_HOLD_S = 1.0
"""A turn held for longer stands out."""


def waiting_line(row: SessionRow, picture: RackPicture, width: int, glyphs: Glyphs) -> Text:
    """Return a session that waits: how long, with how much, and where its last turn ran."""
    state = picture.layout.states[row.state]
    style = STATE_STYLES.get(state, OTHER_STYLE)
    home = "new" if row.replica < 0 else f"{glyphs.arrow}{row.replica}"
    columns = Text.assemble(
        (f" {state:<8}", style),
        (f"{quantities.seconds(picture.now_s - row.since_s):>9}", style),
        (f"{quantities.count(row.context_tokens):>10} tok", LABEL),
        (f"{home:>6} ", LABEL),
    )
    named = row.id + (f" < {row.parent_id}" if row.parent_id else "")
    return fitted(
        Text(f" {clipped(named, width - columns.cell_len - 1)}").append_text(columns), width
    )


def decision_line(
    entry: LatestRow | MoveRow, picture: RackPicture, width: int, glyphs: Glyphs
) -> Text:
    """Return a turn that was sent, or KV that is pulled."""
    began_s = entry.dispatched_s if isinstance(entry, LatestRow) else entry.start_s
    ago = quantities.seconds(max(0.0, picture.now_s - began_s))
    columns = _dispatch(entry, glyphs) if isinstance(entry, LatestRow) else _move(entry, glyphs)
    name = _name(entry) if isinstance(entry, LatestRow) else entry.session
    line = Text.assemble((f"{ago:>9} ", FAINT))
    line.append(clipped(name, width - line.cell_len - columns.cell_len))
    return fitted(line.append_text(columns), width)


def _name(entry: LatestRow) -> str:
    """Return a turn's name, which may have its session's in it."""
    alone = entry.turn_id.startswith(entry.session)
    return entry.turn_id if alone else f"{entry.session} {entry.turn_id}"


def _dispatch(entry: LatestRow, glyphs: Glyphs) -> Text:
    style = STATE_STYLES["held"] if entry.held_s >= NOTABLE_HOLD_S else LABEL
    held = f"held {quantities.seconds(entry.held_s)}" if entry.held_s > 0 else "at once"
    return Text.assemble(
        (f" {glyphs.arrow}{entry.replica:<4}", STATE_STYLES["decode"]),
        (f"{held:>15}", style),
        (f"{quantities.count(entry.cached_tokens_expected):>9} hit ", LABEL),
    )


def _move(entry: MoveRow, glyphs: Glyphs) -> Text:
    places = f"{entry.source}{glyphs.swap}{entry.target}"
    return Text.assemble(
        (f" {places:<7}", USED),
        (f"{'pull ' + quantities.seconds(entry.ready_s - entry.start_s):>13}", LABEL),
        (f"{quantities.count(entry.tokens):>9} tok ", LABEL),
    )
