"""The top of the screen: what rack it is, how it is, and how fast."""

from __future__ import annotations

from rich.text import Text

from agent_runtime.rack_view.messages import SeriesPoint
from agent_runtime.report import quantities
from agent_runtime.terminal_view.connection import Connection
from agent_runtime.terminal_view.rack_state import RackPicture
from agent_runtime.terminal_view.strokes import (
    ACTIVE,
    ALARM,
    FAINT,
    LABEL,
    OTHER_STYLE,
    STATE_STYLES,
    TITLE,
    Glyphs,
    both_ends,
    fitted,
    joined,
    shown,
    sparkline,
    stacked_line,
)

SERIES_NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "jct_s": "JCT"}
LATENCY_WIDTH = 36
MIN_SPARK = 6


def header_lines(
    picture: RackPicture,
    connection: Connection | None,
    width: int,
    glyphs: Glyphs,
    *,
    frozen: bool,
) -> list[Text]:
    """Return what rack it is, its time and sessions, and a line of their states.

    Args:
        picture: Of the rack.
        connection: None where there is none any more, because one picture was wanted.
        width: Of the lines.
        glyphs: To draw with.
        frozen: Whether the picture stands still.
    """
    layout = picture.layout
    facts = [Text(shown(layout.policy)), Text(_source(picture)), Text(_speed(layout.speed))]
    if frozen:
        facts.append(Text(f"{glyphs.pause} frozen", ALARM))
    if connection is not None:
        facts.append(_connection(connection, glyphs))
    right = joined(facts, f" {glyphs.separator} ")
    title = Text(f" {shown(layout.title)}", TITLE)
    states = stacked_line(
        [(n, _style(s)) for s, n in zip(layout.states, picture.num_in_state, strict=True)],
        width,
        glyphs.rule if glyphs.rule == "-" else "\N{BOX DRAWINGS HEAVY HORIZONTAL}",
    )
    return [
        both_ends(title, right.append(" "), width),
        _times_and_sessions(picture, width, glyphs),
        states,
    ]


def figure_lines(picture: RackPicture, width: int, glyphs: Glyphs) -> list[Text]:
    """Return latencies at the left, throughput at the right."""
    rows = _throughput(picture)
    latencies = [
        _latency(SERIES_NAMES.get(name, name.removesuffix("_s").upper()), point)
        for name, point in zip(picture.layout.series, picture.series, strict=True)
    ]
    lines = []
    for number in range(max(len(rows), len(latencies))):
        line = latencies[number] if number < len(latencies) else Text(" " * LATENCY_WIDTH)
        if number < len(rows):
            name, total, rate, values = rows[number]
            line.append(f"  {name:<10}", LABEL).append(f"{total:>8}").append(f"{rate:>15}  ", LABEL)
            room = width - line.cell_len - 1
            if room >= MIN_SPARK:
                line.append_text(sparkline(values, room, glyphs, ACTIVE))
        lines.append(fitted(line, width))
    return lines


def _times_and_sessions(picture: RackPicture, width: int, glyphs: Glyphs) -> Text:
    """Return what is open now, what was refused, and, where there is room, what is over."""
    left, totals = _sessions(picture, glyphs), picture.totals
    refused = Text(f" {totals.refused:,} refused ", ALARM) if totals.refused else Text()
    closed = Text(f" {totals.sessions_closed:,} closed ", LABEL)
    both = Text.assemble(refused, closed)
    fits = left.cell_len + both.cell_len < width
    return both_ends(left, both if fits else refused, width)


def _sessions(picture: RackPicture, glyphs: Glyphs) -> Text:
    line = Text.assemble((" t ", LABEL), (quantities.seconds(picture.now_s), TITLE), "   ")
    line.append(f"{sum(picture.num_in_state):,} sessions ", LABEL)
    for state, num in zip(picture.layout.states, picture.num_in_state, strict=True):
        line.append(f" {glyphs.dot} ", _style(state)).append(f"{num:,}").append(f" {state}", LABEL)
    return line


def _latency(name: str, point: SeriesPoint | None) -> Text:
    p50 = quantities.seconds(None if point is None else point.p50)
    p99 = quantities.seconds(None if point is None else point.p99)
    return Text.assemble(
        (f" {name:<5}", TITLE), ("p50 ", FAINT), f"{p50:>10}", ("  p99 ", FAINT), f"{p99:>10}"
    )


def _throughput(picture: RackPicture) -> list[tuple[str, str, str, list[float]]]:
    """Return what is counted: a name, its total, its rate now, and the rates before."""
    totals, rates, samples = picture.totals, picture.rates, picture.samples
    hit = totals.cached_tokens / totals.prompt_tokens if totals.prompt_tokens else None
    turns, output, prompt = (
        (None, None, None)
        if rates is None
        else (rates.turns, rates.output_tokens, rates.prompt_tokens)
    )
    return [
        (
            "turns",
            quantities.count(totals.turns),
            quantities.rate(turns, "turns"),
            [sample.turns for sample in samples],
        ),
        (
            "output",
            quantities.count(totals.output_tokens),
            quantities.rate(output, "tok"),
            [sample.output_tokens for sample in samples],
        ),
        (
            "prefix hit",
            quantities.ratio(hit),
            quantities.rate(prompt, "tok"),
            [sample.prompt_tokens for sample in samples],
        ),
    ]


def _source(picture: RackPicture) -> str:
    layout = picture.layout
    if layout.source == "emulated" and layout.band is not None:
        return f"emulated, {layout.band}"
    return layout.source


def _speed(speed: float) -> str:
    return "" if speed == 1 else f"{speed:g}x"


def _connection(connection: Connection, glyphs: Glyphs) -> Text:
    if connection.problem is None:
        return Text(f"{glyphs.dot} live", STATE_STYLES["decode"])
    return Text(f"{glyphs.dot} lost, again in {connection.retry_in_s:.0f} s", ALARM)


def _style(state: str) -> str:
    return STATE_STYLES.get(state, OTHER_STYLE)
