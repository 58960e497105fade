"""``panjiu top`` without a terminal and a server: what messages add up to, and how it is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.errors import WireFormatError
from agent_runtime.rack_view.messages import Frame, Layout
from agent_runtime.report.quantities import MISSING
from agent_runtime.terminal_view.connection import Connection
from agent_runtime.terminal_view.look import Key, Look, Panel, ReplicaOrder
from agent_runtime.terminal_view.rack_state import (
    RATE_WINDOW_S,
    RackPicture,
    RackState,
    WatchedRack,
)
from agent_runtime.terminal_view.screen import Room, Screen, draw
from agent_runtime.terminal_view.strokes import (
    ASCII,
    UNICODE,
    clipped,
    kv_bar,
    sparkline,
    stacked_line,
)
from agent_runtime.terminal_view.terminal_keys import KeyReader
from agent_runtime.terminal_view.view_messages import read_message
from tests.rack_view_client import validator
from tests.viewed_rack import DOWN, DRAINING, EMPTY, GAP, HELD, PREFILL, UP, BusyRack, frame, layout


def read(message: dict[str, Any]) -> Any:
    return read_message(msgspec.json.encode(message))


def pictured(*frames: dict[str, Any], **of_layout: Any) -> RackPicture:
    rack = WatchedRack()
    rack.take(read(layout(**{"num_replicas": len(frames[0]["replicas"]), **of_layout})))
    for one in frames:
        rack.take(read(one))
    picture = rack.picture()
    assert picture is not None
    return picture


def lines(picture: RackPicture, room: Room, look: Look | None = None) -> list[str]:
    screen = draw(picture, look or Look(), Connection(), room)
    return [line.plain for line in screen.lines]


def row(key: str, state: int, since_s: float = 0.0, replica: int = 0) -> list[Any]:
    return [key, state, replica, 1_000, since_s, "", ""]


session_ids = st.sampled_from([f"s{n}" for n in range(6)])
deltas = st.lists(
    st.tuples(
        st.dictionaries(session_ids, st.tuples(st.integers(0, 3), st.floats(0, 9)), max_size=6),
        st.sets(session_ids, max_size=3),
        st.booleans(),
    ),
    max_size=12,
)


@given(deltas)
def test_deltas_add_up_to_the_sessions_there_are(changes: list[Any]) -> None:
    state = RackState(read(layout(2)))
    expected: dict[str, list[Any]] = {}
    for number, (changed, gone, whole) in enumerate(changes):
        rows = [row(key, kind, since_s) for key, (kind, since_s) in changed.items()]
        if whole:
            expected.clear()
        for key in gone:
            expected.pop(key, None)
        expected.update({one[0]: one for one in rows})
        state.take(read(frame(float(number), whole=whole, sessions=rows, gone=sorted(gone))))
        state.check_invariants()
        assert {
            key: list(msgspec.structs.astuple(value)) for key, value in state.sessions().items()
        } == expected
        picture = state.picture()
        assert picture is not None
        counts = [sum(one[1] == kind for one in expected.values()) for kind in range(4)]
        assert list(picture.num_in_state) == counts
        waiting = [one for one in expected.values() if one[1] in {HELD, PREFILL}]
        order = [one[0] for one in sorted(waiting, key=lambda r: (r[1], r[4], r[0]))]
        assert [one.id for one in picture.waiting] == order


def test_a_layout_begins_anew() -> None:
    rack = WatchedRack()
    rack.take(read(layout(2)))
    rack.take(read(frame(sessions=[row("a", HELD)])))
    rack.take(read(layout(2)))
    assert rack.picture() is None
    rack.take(read(frame(1.0, whole=False)))
    picture = rack.picture()
    assert picture is not None
    assert sum(picture.num_in_state) == 0


def test_rates_are_over_the_last_seconds_of_the_rack() -> None:
    def at(now_s: float, turns: int) -> dict[str, Any]:
        return frame(now_s, totals={"turns": turns, "output_tokens": 10 * turns})

    assert pictured(at(0, 100)).rates is None
    frames = [at(float(second), 100 if second < 20 else 102 + 3 * (second - 20)) for second in
              range(41)]  # fmt: skip
    rates = pictured(*frames).rates
    assert rates is not None
    assert (rates.turns, rates.output_tokens) == (3.0, 30.0)
    assert pictured(*frames[: 20 + int(RATE_WINDOW_S) // 2]).rates.turns < 3  # type: ignore[union-attr]
    rare = pictured(at(0, 0), at(100, 50), at(200, 250)).rates  # frames further apart than that
    assert rare is not None
    assert rare.turns == 2.0


def test_what_was_decided_is_in_order_newest_first() -> None:
    first = frame(
        1.0,
        latest=[["a#1", "a", 1, 0.5, 0.0, 7], ["b#1", "b", 0, 0.7, 0.2, 7]],
        moves=[["b", 1, 0, 0.6, 0.9, 300]],
    )
    second = frame(2.0, whole=False, latest=[["c#1", "c", 1, 1.5, 0.0, 7]])
    recent = pictured(first, second).recent
    assert [one.session for one in recent] == ["c", "b", "b", "a"]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (frame(replicas=[[0, 0, 0, 0, UP]]), "replicas: 1, the layout has 2"),
        (frame(replicas=[[0, 0, 0, 0, 9]] * 2), r"replicas\[0\]: health 9 is none"),
        (frame(sessions=[row("a", 4)]), r"sessions\[0\]: state 4 is none"),
        (frame(series=[None]), "series: 1, the layout has 3"),
    ],
)
def test_a_frame_that_does_not_fit_says_where(message: dict[str, Any], says: str) -> None:
    rack = WatchedRack()
    with pytest.raises(WireFormatError, match="before its layout"):
        rack.take(read(frame()))
    rack.take(read(layout(2)))
    with pytest.raises(WireFormatError, match=says):
        rack.take(read(message))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "not a message of a rack view"),
        (b'{"kind":"frame","t":1}', "missing required field"),
        (b'{"kind":"frame","t":"1"}', r"\$.t"),
        (b'{"kind":"layout","v":2}', "is of version 2, and this panjiu reads version 1"),
        (b'{"kind":"\xff"}', "not a message"),
    ],
)
def test_what_is_no_message_says_so(data: bytes, says: str) -> None:
    with pytest.raises(WireFormatError, match=says):
        read_message(data)


def test_the_made_up_rack_speaks_the_protocol() -> None:
    told = [layout(32), *itertools.islice(BusyRack(32).frames(), 20), STILL]
    for message in told:
        validator().validate(message)


def test_messages_of_other_kinds_and_more_members_are_passed_over() -> None:
    assert read_message(b'{"kind":"stories","turns":{}}') is None
    assert isinstance(read({**layout(2), "more": "later"}), Layout)
    longer = frame(sessions=[[*row("a", HELD), "more"]])
    assert isinstance(read(longer), Frame)


STILL = frame(
    754.0,
    replicas=[[3, 2, 900, 400, UP], [0, 0, 0, 0, DOWN], [1, 0, 1000, 1, DRAINING]],
    sessions=[
        ["coding-1", HELD, -1, 1_250_000, 690.0, "coding-1#0", ""],
        ["coding-2", PREFILL, 2, 42_352, 753.5, "coding-2#9", "coding-1"],
        ["coding-3", GAP, 0, 7_000, 100.0, "", ""],
    ],
    latest=[["coding-2#9", "coding-2", 2, 753.5, 12.25, 41_000]],
    moves=[["coding-2", 0, 2, 753.0, 753.4, 40_000]],
    series=[[0.505, 8.65, 40], None, [1813.0, 2487.0, 4]],
    totals={
        "turns": 12_345,
        "prompt_tokens": 2_000_000,
        "cached_tokens": 1_934_000,
        "output_tokens": 1_210_000,
        "sessions_closed": 17,
        "refused": 3,
    },
)


def test_a_picture_to_the_letter() -> None:
    shown = lines(pictured(STILL), Room(80, 19, UNICODE))
    assert [line.replace(MISSING, "-") for line in shown] == [
        " Qwen3-235B-A22B on Panjiu AL128          panjiu · emulated, base · 5x · ● live ",
        " t 12 m 34 s   3 sessions  ● 1 held ● 1 prefill ● 0 decode ● 1 gap    3 refused ",
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━",
        " TTFT p50     505 ms  p99     8.65 s  turns       12,345              -         ",
        " TPOT p50          -  p99          -  output      1.21 M              -         ",
        " JCT  p50  30 m 13 s  p99  41 m 27 s  prefix hit  96.7 %              -         ",
        "── 3 replicas by number ─── 1 down · 1 draining · KV 95.0 % used, 20.1 % active ",
        " 0 ■■■■■■■■■□□□□□□□□□□□··   90 %    3+2  1 down                                 ",
        " 2 ■□□□□□□□□□□□□□□□□□□□□□  100 %      1                                         ",
        "── waiting longest ────────────────────────────────────── context, last replica ",
        " coding-1                                 held     1 m 04 s    1.25 M tok   new ",
        " coding-2 < coding-1                      prefill    500 ms    42,352 tok    →2 ",
        "── latest decisions ────────────────────────────────────────────────────────────",
        "   500 ms coding-2#9                          →2       held 12.2 s   41,000 hit ",
        "   1.00 s coding-2                            0↔2      pull 400 ms   40,000 tok ",
        "                                                                                ",
        "                                                                                ",
        "                                                                                ",
        " q  quit   s  sort   space  freeze   tab  panel   j k  scroll                   ",
    ]


def test_every_screen_is_as_large_as_its_room_and_shows_what_it_can() -> None:
    messages = list(itertools.islice(BusyRack(128, 400).frames(), 5))
    picture = pictured(*messages)
    for width, height in itertools.product((20, 40, 80, 131, 220), (1, 5, 12, 24, 70)):
        shown = lines(picture, Room(width, height, UNICODE))
        assert len(shown) == height
        assert {len(line) for line in shown} == {width}


def test_a_turn_is_told_with_its_session() -> None:
    sent = frame(latest=[["turn-7", "coding-1", 1, 0.0, 0.0, 5], ["b#1", "b", 0, 0.0, 0.0, 5]])
    shown = "\n".join(lines(pictured(sent), Room(80, 24, UNICODE)))
    assert "0 s coding-1 turn-7 " in shown
    assert "0 s b#1 " in shown


def test_ascii_is_enough() -> None:
    messages = list(itertools.islice(BusyRack(8, 40).frames(), 5))
    for line in lines(pictured(*messages), Room(80, 24, ASCII)):
        assert line.isascii(), line


def test_32_replicas_are_seen_whole_at_80x24() -> None:
    messages = list(itertools.islice(BusyRack(32).frames(), 5))
    text = "\n".join(lines(pictured(*messages), Room(80, 24, UNICODE)))
    assert all(f" {number} " in text for number in range(32))
    assert "13 down" in text
    for part in ("32 replicas by number", "waiting longest", "latest decisions", "q  quit"):
        assert part in text


def test_room_for_engines_that_are_not_there_takes_no_room() -> None:
    empty = frame(replicas=[[1, 0, 500, 100, UP], [0, 0, 0, 0, EMPTY], [0, 0, 0, 0, EMPTY]])
    shown = lines(pictured(empty), Room(80, 24, UNICODE))
    assert shown[6].startswith("── 1 replicas by number ─")
    assert "2 empty · KV 50.0 % used" in shown[6]
    assert not any("empty" in line for line in shown[7:])
    none = frame(replicas=[[0, 0, 0, 0, EMPTY]] * 2)
    assert "0 replicas" in lines(pictured(none), Room(80, 24, UNICODE))[6]


def test_what_was_reckoned_is_said_to_be() -> None:
    shown = lines(pictured(STILL, fill="reckoned"), Room(100, 24, UNICODE))
    assert "KV 95.0 % used, 20.1 % active, reckoned" in shown[6]


def test_engines_are_called_by_their_hosts() -> None:
    places = [{"id": n, "chips": [n], "label": f"http://10.0.0.{n}:8000"} for n in range(3)]
    picture = pictured(STILL, replicas=places, source="engines", band=None, speed=1.0)
    shown = lines(picture, Room(80, 24, UNICODE))
    assert "panjiu · engines · ● live" in shown[0]
    assert any(line.startswith(" 10.0.0.0:8000 ■■") for line in shown)


def seen(look: Look, picture: RackPicture, *keys: Key, room: Room | None = None) -> Screen:
    """Return the screen after keys, drawn after each."""
    screen = draw(picture, look, Connection(), room or Room(80, 24, UNICODE))
    for key in keys:
        screen = draw(picture, screen.look.after(key), Connection(), room or Room(80, 24, UNICODE))
    return screen


def first_replicas(screen: Screen) -> list[str]:
    row = screen.lines[7].plain
    return [row[start : start + 4].strip() for start in range(0, 80, 20)]


def test_s_sorts_replicas() -> None:
    messages = list(itertools.islice(BusyRack(32).frames(), 5))
    picture = pictured(*messages)
    order = sorted(range(32), key=lambda n: -picture.replicas[n].used_permille)
    screen = seen(Look(), picture, Key.SORT, Key.SORT)
    assert screen.look.order is ReplicaOrder.USED
    assert "by KV used" in screen.lines[6].plain
    assert first_replicas(screen) == [str(number) for number in order[:4]]
    assert seen(Look(), picture, *[Key.SORT] * 4).look == Look().scrolled_to(
        Panel.REPLICAS, 0
    ).scrolled_to(Panel.WAITING, 0).scrolled_to(Panel.DECISIONS, 0)


def test_panels_scroll_as_far_as_there_is_something() -> None:
    messages = list(itertools.islice(BusyRack(128, 400).frames(), 5))
    picture = pictured(*messages)
    down = seen(Look(), picture, *[Key.DOWN] * 3)
    assert first_replicas(down) == ["12", "13", "14", "15"]
    assert "↑3" in down.lines[6].plain
    end = seen(Look(), picture, *[Key.DOWN] * 60)
    back = seen(end.look, picture, Key.UP)
    assert back.look.offset(Panel.REPLICAS) == end.look.offset(Panel.REPLICAS) - 1
    assert seen(end.look, picture, Key.TOP).look.offset(Panel.REPLICAS) == 0
    other = seen(Look(), picture, Key.NEXT_PANEL, Key.DOWN, Key.DOWN)
    assert other.look.offset(Panel.WAITING) == 2
    assert other.look.offset(Panel.REPLICAS) == 0
    assert any(picture.waiting[2].id in line.plain for line in other.lines)


def test_a_lost_connection_says_why_and_until_when() -> None:
    lost = Connection("no server at http://x", 3.6)
    shown = [
        line.plain for line in draw(pictured(STILL), Look(), lost, Room(80, 24, UNICODE)).lines
    ]
    assert "lost, again in 4 s" in shown[0]
    assert shown[-1].strip() == "no server at http://x"


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 60))
def test_bars_show_whatever_there_is(used: int, active: int, width: int) -> None:
    bar = kv_bar(used, min(used, active), width, ASCII).plain
    assert len(bar) == width
    assert bar == "#" * bar.count("#") + "=" * bar.count("=") + "." * bar.count(".")
    assert ("#" in bar) == (min(used, active) > 0)
    if width > 1:
        assert ("." in bar) == (used < 1000)
        assert "#" in bar or ("=" in bar) == (used > 0)


@given(st.lists(st.floats(0, 1e6), max_size=30), st.integers(0, 20))
def test_sparklines_end_with_the_newest(values: Sequence[float], width: int) -> None:
    line = sparkline(values, width, ASCII, "")
    assert len(line.plain) == width
    if width and values and max(values[-width:]) == values[-1] > 0:
        assert line.plain[-1] == ASCII.levels[-1]


@given(st.lists(st.integers(0, 10**6), max_size=5), st.integers(5, 80))
def test_a_stacked_line_shows_every_part_that_is_there(counts: list[int], width: int) -> None:
    line = stacked_line([(n, f"color({i})") for i, n in enumerate(counts)], width, "-")
    assert line.plain == "-" * width
    if any(counts):
        assert {str(span.style) for span in line.spans} == {
            f"color({i})" for i, n in enumerate(counts) if n
        }


def test_what_clients_call_their_sessions_is_not_obeyed() -> None:
    evil = "a\x1b[2Jb\nc\x07"
    rows = [[evil, HELD, -1, 10, 0.0, "", evil]]
    sent = [[f"{evil}#1", evil, 0, 0.0, 0.0, 10]]
    picture = pictured(frame(1.0, sessions=rows, latest=sent), title=evil, policy=evil)
    drawn = "".join(lines(picture, Room(80, 24, UNICODE)))
    assert drawn.isprintable()
    assert "a?[2Jb?c? < a?[2Jb?c?" in drawn


def test_names_with_wide_characters_keep_columns() -> None:
    assert clipped("会议记录", 5) == "会议…"
    assert clipped("会议", 6) == "会议  "
    assert clipped("ab", 4, right=True) == "  ab"


@given(st.lists(st.sampled_from([b"q", b"j", b"\x1b[A", b"\x1bOB", b"x", b"\x1b[15~", b" "])),
       st.data())  # fmt: skip
def test_keys_are_the_same_however_their_bytes_come(
    typed: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(typed)
    reader, keys, place = KeyReader(), [], 0
    while place < len(whole):
        step = data.draw(st.integers(1, len(whole) - place))
        keys += reader.feed(whole[place : place + step])
        place += step
    meanings = {
        b"q": Key.QUIT, b"j": Key.DOWN, b"\x1b[A": Key.UP, b"\x1bOB": Key.DOWN, b" ": Key.FREEZE,
    }  # fmt: skip
    assert keys == [meanings[one] for one in typed if one in meanings]


def test_an_escape_by_itself_takes_no_key_with_it() -> None:
    reader = KeyReader()
    assert reader.feed(b"\x1b") == []
    assert reader.feed(b"q") == [Key.QUIT]
