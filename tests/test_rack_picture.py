"""The picture of a rack that decisions tell: what readers get, whatever their pace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.measurement.decision_lines import decision_line
from agent_runtime.measurement.decision_reading import read_decisions
from agent_runtime.measurement.turn_stories import TurnStory
from agent_runtime.rack_view.kept_stories import ChosenStories, LatestStories
from agent_runtime.rack_view.layouts import emulated_layout
from agent_runtime.rack_view.messages import Frame, Health, ReplicaRow, SessionState, encoded
from agent_runtime.rack_view.rack_picture import RackPicture
from agent_runtime.rack_view.recorder import ViewRecorder
from agent_runtime.rack_view.series_window import SeriesWindow, series_point
from hw_model.claim import Band
from scheduler.commands import Command, Dispatch, Drop, Pull, Refuse
from scheduler.decision import Decision
from scheduler.events import Event, PrefillEnded, SessionClosed, TurnArrived, TurnEnded, Woken
from scheduler.ids import ReplicaId, SessionId, TurnId
from tests.engines import deployment
from tests.rack_view_client import Watcher, validator

ROWS = [ReplicaRow(1, 0, 500, 250, int(Health.UP))] * 2


def arrived(turn: str, session: str = "s", tokens: int = 100, **more: Any) -> TurnArrived:
    return TurnArrived(TurnId(turn), SessionId(session), tokens, 10, **more)


def dispatched(turn: str, replica: int = 0, cached: int = 0) -> Dispatch:
    return Dispatch(TurnId(turn), ReplicaId(replica), num_expected_cached_tokens=cached)


def pull(session: str, source: int, target: int, ready_s: float) -> Pull:
    return Pull(SessionId(session), ReplicaId(source), ReplicaId(target), ready_s)


def take(picture: RackPicture, now_s: float, event: Event, *commands: Command) -> None:
    picture.take(Decision(now_s, event, commands))
    picture.check_invariants()


def message(frame: Frame) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(encoded(frame))
    return told


def rows_of(picture: RackPicture, now_s: float = 1e6) -> dict[str, list[Any]]:
    return {row[0]: row for row in message(picture.frame(None, now_s, ROWS))["sessions"]}


SESSIONS, TURNS = "abcdef", [f"{session}{number}" for session in "abcdef" for number in range(3)]
sessions, turns = st.sampled_from(SESSIONS), st.sampled_from(TURNS)
replicas = st.sampled_from([0, 1])
events = st.one_of(
    turns.map(lambda turn: arrived(turn, turn[0])),
    turns.map(lambda turn: arrived(turn, turn[0], parent_id=SessionId("a"))),
    st.builds(PrefillEnded, turns.map(TurnId), st.just(7), st.booleans()),
    turns.map(lambda turn: TurnEnded(TurnId(turn), 120)),
    sessions.map(lambda session: SessionClosed(SessionId(session))),
    st.just(Woken()),
)
commands = st.one_of(
    st.builds(dispatched, turns, replicas),
    st.builds(pull, sessions, replicas, replicas, st.floats(0, 100)),
    turns.map(lambda turn: Refuse(TurnId(turn), 1000, 500)),
    sessions.map(lambda session: Drop(SessionId(session), ReplicaId(0))),
)
steps = st.tuples(events, st.lists(commands, max_size=3), st.sets(st.integers(0, 2)))


@settings(max_examples=300)
@given(st.lists(steps, max_size=60), st.integers(1, 8), st.integers(0, 8))
def test_deltas_lead_where_a_whole_frame_does_whatever_happens_and_whoever_reads(
    happened: Sequence[Any], max_sessions: int, max_gone: int
) -> None:
    picture = RackPicture(max_sessions, max_gone)
    watchers = [Watcher() for _ in range(3)]
    read: list[int | None] = [None] * 3

    def look(number: int, now_s: float) -> None:
        watchers[number].take(message(picture.frame(read[number], now_s, ROWS)))
        read[number] = picture.version
        assert watchers[number].sessions == rows_of(picture, now_s)

    for now_s, (event, what, readers) in enumerate(happened):
        take(picture, float(now_s), event, *what)
        for number in readers:
            look(number, float(now_s))
    for number in range(3):
        look(number, float(len(happened)))
    last = [{**watcher.last, "whole": None} for watcher in watchers]
    assert all(one["totals"] == last[0]["totals"] for one in last)
    active = [row for row in rows_of(picture).values() if row[1] != SessionState.GAP]
    assert picture.num_sessions <= max(max_sessions, len(active))


@given(st.lists(steps, max_size=40))
def test_a_log_read_again_leads_to_the_same_picture(happened: Sequence[Any]) -> None:
    told, read = RackPicture(), RackPicture()
    decisions = [Decision(float(at), event, what) for at, (event, what, _) in enumerate(happened)]
    lines = [decision_line(decision).encode() for decision in decisions]
    for decision in decisions:
        told.take(decision)
    for _, decision in read_decisions(enumerate(lines, start=1), "run.jsonl"):
        read.take(decision)
    assert message(told.frame(None, 1e3, ROWS)) == message(read.frame(None, 1e3, ROWS))


@settings(max_examples=60)
@given(st.lists(steps, max_size=120), st.integers(1, 40))
def test_a_recording_leads_where_the_run_did_however_often_it_was_thinned(
    happened: Sequence[Any], max_frames: int
) -> None:
    plan = deployment(num_replicas=2)
    picture = RackPicture()
    layout = emulated_layout(plan, band=Band.BASE, policy="panjiu", source="recording")
    recorder = ViewRecorder(layout, Fixed(), max_frames=max_frames + 2)
    for at, (event, what, _) in enumerate(happened):
        decision = Decision(float(3 * at), event, what)
        picture.take(decision)
        recorder.take(decision)
    watcher = Watcher()
    messages = recorder.messages()
    for one in messages:
        watcher.take(json.loads(encoded(one)))
    assert len(messages) <= max_frames + 4
    assert watcher.sessions == rows_of(picture)
    assert watcher.last["totals"] == message(picture.frame(None, 1e6, ROWS))["totals"]


class Fixed:
    """Gauges that never move."""

    def read(self) -> list[ReplicaRow]:
        return ROWS


def test_a_session_is_held_prefilled_decodes_and_rests_where_it_ran() -> None:
    picture = RackPicture()
    take(picture, 1.0, arrived("t0", tokens=500))
    assert rows_of(picture)["s"] == ["s", SessionState.HELD, -1, 500, 1.0, "t0", ""]
    take(picture, 2.5, Woken(), dispatched("t0", 1, cached=64))
    assert rows_of(picture)["s"] == ["s", SessionState.PREFILL, 1, 500, 2.5, "t0", ""]
    latest = message(picture.frame(None, 3.0, ROWS))["latest"]
    assert latest == [["t0", "s", 1, 2.5, 1.5, 64]]
    take(picture, 3.0, PrefillEnded(TurnId("t0"), 80))
    assert rows_of(picture)["s"] == ["s", SessionState.DECODE, 1, 500, 3.0, "t0", ""]
    take(picture, 5.0, TurnEnded(TurnId("t0"), 521))
    assert rows_of(picture)["s"] == ["s", SessionState.GAP, 1, 521, 5.0, "", ""]
    frame = message(picture.frame(None, 5.0, ROWS))
    assert frame["series"] == [[2.0, 2.0, 1], [0.1, 0.1, 1], None]
    take(picture, 9.0, SessionClosed(SessionId("s")))
    assert rows_of(picture) == {}
    frame = message(picture.frame(None, 9.0, ROWS))
    assert frame["series"] == [None, [0.1, 0.1, 1], [4.0, 4.0, 1]]
    assert frame["totals"] == {
        "turns": 1, "prompt_tokens": 500, "cached_tokens": 80, "output_tokens": 21,
        "sessions_closed": 1, "refused": 0,
    }  # fmt: skip


def test_of_turns_side_by_side_the_most_advanced_is_shown() -> None:
    picture = RackPicture()
    take(picture, 1.0, arrived("one"), dispatched("one", 0))
    take(picture, 2.0, arrived("two", tokens=70))
    assert rows_of(picture)["s"][1:6] == [SessionState.PREFILL, 0, 100, 1.0, "one"]
    take(picture, 3.0, PrefillEnded(TurnId("one"), 0))
    take(picture, 4.0, Woken(), dispatched("two", 1))
    assert rows_of(picture)["s"][1:6] == [SessionState.DECODE, 0, 100, 3.0, "one"]
    take(picture, 5.0, TurnEnded(TurnId("one"), 110))
    assert rows_of(picture)["s"][1:6] == [SessionState.PREFILL, 1, 70, 4.0, "two"]


def test_output_is_what_an_engine_counted_where_it_says() -> None:
    picture = RackPicture()
    take(picture, 0.0, arrived("t"), dispatched("t"))
    take(picture, 1.0, PrefillEnded(TurnId("t"), 0))
    take(picture, 2.0, TurnEnded(TurnId("t"), 90, num_output_tokens=11))
    assert picture.totals().output_tokens == 11
    assert message(picture.frame(None, 2.0, ROWS))["series"][1] == [0.1, 0.1, 1]


def test_nobody_saw_the_first_token_of_an_answer_in_one_piece() -> None:
    picture = RackPicture()
    take(picture, 0.0, arrived("t"), dispatched("t"))
    take(picture, 5.0, PrefillEnded(TurnId("t"), 30, first_token_seen=False))
    assert rows_of(picture)["s"][1] == SessionState.PREFILL
    story = picture.turns.under_way[TurnId("t")]
    take(picture, 5.0, TurnEnded(TurnId("t"), 110))
    assert (story.ttft_s, story.cached_tokens, story.ended_s) == (None, 30, 5.0)
    assert message(picture.frame(None, 5.0, ROWS))["series"] == [None, None, None]
    told = picture.totals()
    assert (told.turns, told.prompt_tokens, told.cached_tokens) == (1, 100, 30)
    assert told.output_tokens == 10


def test_a_refused_turn_is_counted_and_shows_no_session() -> None:
    picture = RackPicture()
    take(picture, 0.0, arrived("t"), Refuse(TurnId("t"), 110, 50))
    assert rows_of(picture) == {}
    assert picture.totals().refused == 1
    assert not picture.turns.under_way


def test_a_session_that_was_refused_a_turn_has_no_completion_time() -> None:
    picture = RackPicture()
    take(picture, 0.0, arrived("t"), dispatched("t"))
    take(picture, 1.0, TurnEnded(TurnId("t"), 110))
    take(picture, 2.0, arrived("u"), Refuse(TurnId("u"), 110, 50))
    take(picture, 3.0, SessionClosed(SessionId("s")))
    assert message(picture.frame(None, 3.0, ROWS))["series"][2] is None


def test_sub_agents_name_their_parents_and_count_for_no_completion_time() -> None:
    picture = RackPicture()
    take(picture, 0.0, arrived("t", "child", parent_id=SessionId("s")), dispatched("t"))
    assert rows_of(picture)["child"][6] == "s"
    take(picture, 1.0, TurnEnded(TurnId("t"), 110))
    take(picture, 1.0, SessionClosed(SessionId("child")))
    assert message(picture.frame(None, 1.0, ROWS))["series"][2] is None


def test_who_comes_late_sees_the_moves_that_are_still_under_way() -> None:
    picture = RackPicture()
    take(picture, 0.0, arrived("t"), dispatched("t"))
    take(picture, 1.0, TurnEnded(TurnId("t"), 110))
    take(picture, 2.0, Woken(), pull("s", 0, 1, 3.0), pull("s", 1, 0, 9.0))
    version = picture.version
    assert message(picture.frame(None, 4.0, ROWS))["moves"] == [["s", 1, 0, 2.0, 9.0, 110]]
    assert message(picture.frame(version, 4.0, ROWS))["moves"] == []
    assert len(message(picture.frame(version - 1, 4.0, ROWS))["moves"]) == 1


def test_sessions_idle_for_longest_are_forgotten_and_those_at_work_are_not() -> None:
    picture = RackPicture(max_sessions=3)
    take(picture, 0.0, arrived("busy", "busy"), dispatched("busy"))
    for number in range(5):
        name = f"s{number}"
        take(picture, 1.0 + number, arrived(name, name), dispatched(name))
        take(picture, 1.5 + number, TurnEnded(TurnId(name), 110))
    assert set(rows_of(picture)) == {"busy", "s3", "s4"}
    assert picture.totals().sessions_closed == 0


def test_a_reader_who_has_slept_through_too_much_gets_everything_anew() -> None:
    picture = RackPicture(max_gone=2)
    take(picture, 0.0, arrived("t0", "s0"))
    version = picture.version
    for number in range(4):
        take(picture, 1.0, TurnEnded(TurnId(f"t{number}"), 0))
        take(picture, 1.0, SessionClosed(SessionId(f"s{number}")))
        take(picture, 1.0, arrived(f"t{number + 1}", f"s{number + 1}"))
    frame = picture.frame(version, 2.0, ROWS)
    assert frame.whole
    assert [row.id for row in frame.sessions] == ["s4"]


def test_percentiles_are_over_what_came_since_the_last_look_and_five_seconds_at_least() -> None:
    window = SeriesWindow()
    for version in range(100):
        window.add(version, float(version), float(version))
    assert window.since(98) == [99.0]
    assert window.since(98, 95.0) == [99.0, 98.0, 97.0, 96.0]
    assert series_point([]) is None
    assert series_point(list(map(float, range(1, 201)))) is not None
    point = series_point([float(value) for value in range(200, 0, -1)])
    assert point is not None
    assert (point.p50, point.p99, point.num) == (100.0, 198.0, 200)


def test_of_stories_the_latest_are_kept_and_of_a_run_the_slowest_and_some() -> None:
    latest, chosen = LatestStories(3), ChosenStories()
    for number in range(30_000):
        story = TurnStory(TurnId(f"t{number}"), SessionId("s"), 10, float(number))
        story.prefilled_s = number + (1000.0 if number % 1000 == 7 else 1.0)
        latest.keep(story)
        chosen.keep(story)
    assert latest.find(TurnId("t29999")) is not None
    assert latest.find(TurnId("t29996")) is None
    kept = list(chosen)
    assert len(kept) <= 2000
    assert {story.turn for story in kept} >= {f"t{number}" for number in range(7, 30_000, 1000)}
    assert [story.arrived_s for story in kept] == sorted(story.arrived_s for story in kept)


def test_a_layout_says_which_chips_of_which_domain_a_replica_is_on() -> None:
    plan = deployment("qwen3-235b-a22b", tp=8)
    layout = emulated_layout(plan, band=Band.BASE, policy="panjiu")
    validator().validate(json.loads(encoded(layout)))
    assert [chip.domain for chip in layout.chips] == [0] * 64 + [1] * 64
    assert layout.replicas[9].chips == tuple(range(72, 80))
    used = [chip for replica in layout.replicas for chip in replica.chips]
    assert sorted(used) == list(range(128))
    for replica in layout.replicas:
        assert len({layout.chips[chip].domain for chip in replica.chips}) == 1
