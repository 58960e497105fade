"""The parts of a load test: arrivals, shared text, conversations, streams, figures, comparison."""

from __future__ import annotations

import io
import json
import math
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent_runtime.errors import ConfigError
from agent_runtime.load_test.arrivals import (
    ArrivalKind,
    Arrivals,
    lane_starts,
    poisson_times,
    trace_times,
)
from agent_runtime.load_test.call_errors import CallFailedError
from agent_runtime.load_test.comparison import compare, differences
from agent_runtime.load_test.conversation import Conversation
from agent_runtime.load_test.phases import Phases
from agent_runtime.load_test.reply_reader import ReplyReader
from agent_runtime.load_test.run_timeline import run_timeline
from agent_runtime.load_test.seen_turns import SeenTurns, gaps_between_tokens
from agent_runtime.load_test.session_source import SessionSource
from agent_runtime.load_test.shared_blocks import SharedBlocks
from agent_runtime.load_test.summary import ErrorCount, Window
from agent_runtime.load_test.tokenisation import (
    FEW_WORDS,
    MANY_WORDS,
    CountSource,
    Tokenisation,
    calibration_prompts,
)
from agent_runtime.load_test.turn_record import TurnRecord
from agent_runtime.load_test.word_stream import SpokenName, WordStream
from agent_runtime.report.load_page import load_page
from agent_runtime.report.load_table import print_load
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript
from scheduler.ids import SessionId
from tests.faulty_server import FaultyServer
from tests.load_runs import loaded, plan_of, session, small_workload

RATES = st.floats(0.01, 100)
RAMPS = st.floats(0, 600)


@given(RATES, RAMPS, st.integers(0, 1000))
def test_poisson_times_rise_and_depend_on_the_seed_alone(
    rate: float, ramp_s: float, seed: int
) -> None:
    times = list(islice(poisson_times(rate, ramp_s, seed), 50))
    assert times == list(islice(poisson_times(rate, ramp_s, seed), 50))
    assert all(0 < before <= after for before, after in pairwise(times))


@given(RATES, RAMPS, st.integers(0, 1000))
def test_a_ramp_only_bends_the_time_of_the_same_process(
    rate: float, ramp_s: float, seed: int
) -> None:
    plain = list(islice(poisson_times(rate, 0.0, seed), 50))
    bent = list(islice(poisson_times(rate, ramp_s, seed), 50))
    for unit, at_s in zip(plain, bent, strict=True):
        due = at_s**2 / (2 * ramp_s) if at_s < ramp_s else at_s - ramp_s / 2
        assert due == pytest.approx(unit, rel=1e-6)


def test_so_many_sessions_come_as_the_rate_says() -> None:
    times = np.array(list(islice(poisson_times(2.0, 10.0, 5), 20_000)))
    after = np.diff(times[times > 10])
    assert after.mean() == pytest.approx(0.5, rel=0.03)
    assert after.std() == pytest.approx(0.5, rel=0.05)  # as exponential gaps have it


@given(st.integers(1, 300), RAMPS)
def test_lanes_start_evenly_over_the_ramp(num: int, ramp_s: float) -> None:
    starts = lane_starts(num, ramp_s)
    assert len(starts) == num
    assert starts[0] == 0
    assert all(after - before == pytest.approx(ramp_s / num) for before, after in pairwise(starts))


def test_a_trace_keeps_its_distances() -> None:
    assert list(trace_times((5.0, 6.0, 9.0), 0.5)) == [0.0, 0.5, 2.0]


@pytest.mark.parametrize("text", ["", "open", "poisson", "poisson:", "poisson:0", "poisson:nan",
                                  "poisson:inf", "poisson:-1", "closed:3", "trace:1"])  # fmt: skip
def test_arrivals_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--arrival.*poisson:RATE"):
        Arrivals.parse(text)


def test_arrivals_are_read_and_written_alike() -> None:
    for text in ("closed", "trace", "poisson:0.5"):
        assert str(Arrivals.parse(text)) == text
    assert Arrivals.parse("poisson:2").kind is ArrivalKind.POISSON


def test_phases_have_names() -> None:
    phases = Phases(10, 5, 60, 5)
    names = [phases.name_at(at_s) for at_s in (0, 12, 15, 80)]
    assert names == ["ramp", "warm-up", "measuring", "draining"]
    assert Phases(0, 0, None, 5).stop_s == math.inf


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10)), min_size=1, max_size=6))
def test_blocks_are_shared_that_two_sessions_have(spans: list[tuple[int, int]]) -> None:
    sessions = [
        SessionScript(SessionId(str(index)), (ScriptedTurn(1, 1, 0, ((first, first + more),)),))
        for index, (first, more) in enumerate(spans)
    ]
    shared = SharedBlocks(sessions)
    told = {
        block: is_shared
        for first, last, is_shared in shared.split((0, 60))
        for block in range(first, last + 1)
    }
    assert sorted(told) == list(range(61))
    for block, is_shared in told.items():
        owners = sum(first <= block <= first + more for first, more in spans)
        assert is_shared == (owners > 1)


PER_WORD = st.floats(0.5, 3.0)


@given(PER_WORD, st.integers(0, 400), st.integers(1, 200), st.integers(1, 64))
def test_words_at_a_position_do_not_depend_on_where_reading_begins(
    per_word: float, start: int, num: int, block: int
) -> None:
    stream = WordStream(block, per_word, SharedBlocks([]), "salt")
    runs, name = ((5, 9), (100, 140)), SpokenName("s", 0)
    whole = stream.text(name, runs, 0, 2000).split()
    at = int(start / per_word)
    assert stream.text(name, runs, start, num).split() == whole[at : at + num]
    assert len(whole) == 2000


@given(PER_WORD, st.integers(1, 30), st.integers(1, 30))
def test_prompts_share_text_as_long_as_they_share_blocks(
    per_word: float, num_shared: int, num_own: int
) -> None:
    stream = WordStream(16, per_word, SharedBlocks([]), "")
    one = stream.text(SpokenName("a", 0), ((0, num_shared - 1), (100, 100 + num_own)), 0, 1500)
    other = stream.text(SpokenName("b", 0), ((0, num_shared - 1), (500, 500 + num_own)), 0, 1500)
    num_words = int(num_shared * 16 / per_word)
    assert one.split()[:num_words] == other.split()[:num_words]
    assert one.split()[num_words:] != other.split()[num_words:]


@given(st.floats(0.5, 4), st.floats(0, 20), st.floats(0, 50))
def test_a_tokenisation_is_found_from_three_counts(
    per_word: float, message: float, opening: float
) -> None:
    sizes = [(1, FEW_WORDS), (1, MANY_WORDS), (3, 3 * FEW_WORDS)]
    prompts = calibration_prompts()
    assert [
        (len(said), sum(len(one["content"].split()) for one in said)) for said in prompts
    ] == sizes
    counts = [round(opening + num * message + words * per_word) for num, words in sizes]
    found = Tokenisation.of_counts(counts, CountSource.USAGE)
    assert found.tokens_per_word == pytest.approx(per_word, abs=0.003)
    assert found.message_tokens == pytest.approx(message, abs=1.1)
    assert found.opening_tokens == pytest.approx(opening, abs=2.2)


@given(
    st.floats(0.7, 2.0),
    st.lists(st.tuples(st.integers(40, 400), st.integers(1, 60)), min_size=1, max_size=8),
    st.floats(0.2, 1.5),
)
def test_errors_in_counting_do_not_add_up(
    real_per_word: float, turns: list[tuple[int, int]], reply_share: float
) -> None:
    known = Tokenisation(real_per_word * 1.02, 4.0, 3.0, CountSource.USAGE)  # 2 % off
    talk = Conversation(SpokenName("s", 0), WordStream(16, 1.0, SharedBlocks([]), ""), known, 16)
    isl = 0
    for more, osl in turns:
        isl += more + 100
        said = json.loads(b"[" + talk.ask(ScriptedTurn(isl, osl, 0, ((0, isl // 16 - 1),))) + b"]")
        assert [one["role"] for one in said] == (["user", "assistant"] * len(said))[: len(said)]
        words = sum(len(one["content"].split()) for one in said if one["role"] == "user")
        heard = sum(int(one["content"]) for one in said if one["role"] == "assistant")
        counted = round(3 + 4 * len(said) + real_per_word * words + heard)
        new = more + 100 if len(said) > 1 else isl
        assert abs(counted - isl) <= 0.03 * new + real_per_word + 2
        talk.counted(counted)
        reply = max(1, int(osl * reply_share))
        talk.hear(str(reply), reply)
        isl += osl


def test_a_history_that_is_cut_keeps_what_is_shared_and_alternates() -> None:
    stream = WordStream(16, 1.0, SharedBlocks([]), "")
    talk = Conversation(SpokenName("s", 0), stream, Tokenisation(1, 2, 1, CountSource.USAGE), 16)
    first = json.loads(b"[" + talk.ask(ScriptedTurn(320, 10, 0, ((0, 19),))) + b"]")
    talk.hear("reply", 10)
    talk.ask(ScriptedTurn(640, 10, 0, ((0, 39),)))
    talk.hear("reply", 10)
    cut = json.loads(b"[" + talk.ask(ScriptedTurn(480, 10, 0, ((0, 14), (900, 914)))) + b"]")
    assert [one["role"] for one in cut] == ["user"]
    assert cut[0]["content"].split()[:240] == first[0]["content"].split()[:240]
    assert cut[0]["content"].split()[240:260] != first[0]["content"].split()[240:260]


def read(*events: object, at_s: float = 1.0) -> TurnRecord:
    record = TurnRecord("s", 0, 0.0, 10, 10)
    reader = ReplyReader(record)
    for number, one in enumerate(events):
        data = one if isinstance(one, bytes) else json.dumps(one).encode()
        reader.take(b"data: " + data + b"\n\n", at_s + number)
    reader.end()
    return record


def said(text: str, **more: object) -> dict[str, object]:
    return {"choices": [{"delta": {"content": text}}], **more}


def test_usage_at_the_end_corrects_what_chunks_counted() -> None:
    details = {"cached_tokens": 8}
    usage = {"prompt_tokens": 9, "completion_tokens": 6, "prompt_tokens_details": details}
    record = read(said("a b"), said("c d"), {"choices": [], "usage": usage}, b"[DONE]")
    assert (record.output_tokens, record.prompt_tokens, record.cached_tokens) == (6, 9, 8)
    assert not record.counts_known
    assert record.tpot_s == pytest.approx(1 / 5)
    assert list(record.gaps_s) == [1.0]


def test_reasoning_and_tool_calls_are_tokens_too() -> None:
    for delta in ({"reasoning": "hm"}, {"reasoning_content": "hm"}, {"tool_calls": [{"index": 0}]}):
        record = read({"choices": [{"delta": delta, "finish_reason": "stop"}]})
        assert record.first_s == 1.0
        assert record.output_tokens == 1


def test_what_is_not_repeated_in_the_next_prompt_is_not_counted_there() -> None:
    record = TurnRecord("s", 0, 0.0, 10, 10)
    reader = ReplyReader(record)
    for delta in ({"reasoning": "x" * 30}, {"content": "y" * 10}):
        reader.take(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n", 1.0)
    record.output_tokens = 40
    assert (reader.text, reader.text_tokens) == ("y" * 10, 10)


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ((said("a"),), "broken_stream"),
        ((b"[DONE]",), "empty_reply"),
        ((said("a"), b"[]"), "broken_stream"),
        (({"error": "no"},), "error_in_stream"),
        (({"choices": [{"delta": {"content": 5}}]},), "broken_stream"),
    ],
)
def test_streams_that_are_none_are_errors(events: tuple[object, ...], kind: str) -> None:
    with pytest.raises(CallFailedError) as raised:
        read(*events)
    assert raised.value.kind == kind


@given(st.lists(st.tuples(st.floats(0, 90), st.floats(0, 30)), min_size=1, max_size=20))
def test_streams_over_time_come_to_their_lengths(spans: list[tuple[float, float]]) -> None:
    turns = []
    for start, length in spans:
        turn = TurnRecord("s", 0, start, 1, 1, sent_s=start, ended_s=start + length)
        turns.append(turn)
    seen = SeenTurns(turns, Window(start_s=0, end_s=130), 130.0)
    timeline = run_timeline(seen)
    total = sum(length for _, length in spans)
    assert sum(timeline.streams) * timeline.bin_s == pytest.approx(total, abs=1e-6)
    assert seen.mean_in_flight(0, 130) * 130 == pytest.approx(total, abs=1e-6)
    at_s, streams = seen.in_flight()
    assert streams[-1] == 0
    assert list(at_s) == sorted(at_s)


@given(st.lists(st.tuples(st.floats(0.001, 1), st.integers(1, 9)), min_size=1, max_size=20))
def test_token_gaps_come_to_the_time_between_chunks(gaps: list[tuple[float, int]]) -> None:
    turn = TurnRecord("s", 0, 0.0, 1, 1, first_s=1.0, first_tokens=1, counts_known=True)
    for gap_s, num in gaps:
        turn.gaps_s.append(gap_s)
        turn.gap_tokens.append(num)
    found = gaps_between_tokens([turn])
    assert found.size == sum(num for _, num in gaps)
    assert found.sum() == pytest.approx(sum(gap_s for gap_s, _ in gaps))


def test_a_source_gives_each_session_once_or_begins_again() -> None:
    sessions = (session("a", (20, 1, 0)), session("b", (20, 1, 0)))
    once = SessionSource(sessions, again=False, most=None)
    assert [once.next() for _ in range(3)] == [(sessions[0], 0), (sessions[1], 0), None]
    anew = SessionSource(sessions, again=True, most=3)
    assert [anew.next() for _ in range(4)][2:] == [(sessions[0], 1), None]


def test_what_a_server_says_is_text_on_the_page() -> None:
    hostile = "<script>alert(1)</script>"
    summary, _ = loaded(FaultyServer(), plan_of(small_workload(2)))
    error = ErrorCount(kind="http_500", count=3, example=hostile, first_s=1.0)
    page = load_page(
        summary.model_copy(update={"errors": [error], "warnings": [hostile]}), f"panjiu {hostile}"
    )
    assert hostile not in page
    assert page.count("&lt;script&gt;") >= 3
    assert "http://" not in page.replace("http://127.0.0.1:0", "").replace("http://www.w3.org", "")


def test_figures_of_nothing_are_shown_as_nothing() -> None:
    summary, _ = loaded(
        FaultyServer(), plan_of(small_workload(2), phases=Phases(0, 0, 100, 1)), stop_after_s=0.7
    )
    assert summary.turns.answered == 0
    assert "nothing was measured" in load_page(summary, "panjiu loadtest")
    with Console(file=io.StringIO()) as console:
        print_load(console, summary)


def test_a_run_beside_itself_differs_in_nothing() -> None:
    summary, _ = loaded(FaultyServer(), plan_of(small_workload(5)))
    for one in compare(summary, summary):
        if one.ratio is not None:
            assert one.ratio == 1
        if one.low is not None and one.high is not None:
            assert one.low <= 1 <= one.high
    assert differences(summary, summary) == []


def test_a_slower_server_is_told_with_an_interval() -> None:
    fast, _ = loaded(FaultyServer(), plan_of(small_workload(8)))
    slow, _ = loaded(FaultyServer(first_s=0.2), plan_of(small_workload(8), num_sessions=3))
    ratios = {one.name: one for one in compare(fast, slow)}
    ttft = ratios["TTFT mean"]
    assert ttft.ratio == pytest.approx(2)
    assert ttft.low == pytest.approx(2)
    assert ratios["TPOT mean"].ratio == pytest.approx(1)
    assert differences(fast, slow) == ["sessions: 2 and 3"]
