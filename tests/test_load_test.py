"""Load tests in virtual time: what a client sees is what the rack did, and faults are counted."""

from __future__ import annotations

import math
from dataclasses import replace

import anyio
import numpy as np
import pytest

from agent_runtime.errors import BackendError, ConfigError
from agent_runtime.load_test.load_plan import Objectives
from agent_runtime.load_test.phases import Phases
from agent_runtime.load_test.request_form import ReplyLength, SessionIdentity
from agent_runtime.load_test.session_player import AfterError, History
from agent_runtime.load_test.turn_record import SessionEnd
from agent_runtime.workload.coding_agents import coding_agent_sessions
from agent_runtime.workload.fan_out import fan_out_sessions
from tests.faulty_server import FIRST_S, TOKEN_S, FaultyServer
from tests.load_runs import (
    BLOCK,
    loaded,
    loaded_rack,
    plan_of,
    session,
    small_workload,
    with_speech,
    workload,
)


def test_the_client_sees_the_times_that_the_rack_says_it_took() -> None:
    summary, run, service = loaded_rack(plan_of(small_workload(6, 4), num_sessions=3))
    assert service.live_run is not None
    truth = service.live_run.detail(run.ended_s, 1.0)
    turns = run.log.turns
    assert len(turns) == summary.turns.answered == len(truth.ttft_s) - 1  # and the probe
    seen = sorted(turn.ttft_s for turn in turns)
    assert np.allclose(seen, np.sort(truth.ttft_s[1:]), rtol=0, atol=1e-9)
    seen = sorted(turn.tpot_s for turn in turns)
    assert np.allclose(seen, np.sort(truth.tpot_s[1:]), rtol=0, atol=1e-9)
    assert summary.tokens.prompt == summary.tokens.prompt_wanted
    assert summary.tokens.output == summary.tokens.output_wanted
    assert summary.sessions.completed == 6
    assert not summary.client.is_limit


def test_the_same_plan_gives_the_same_figures() -> None:
    plan = plan_of(small_workload(5), "poisson:1", None, seed=3)
    assert loaded_rack(plan)[0] == loaded_rack(plan)[0]


def test_generated_agents_find_their_kv_and_have_prompts_of_the_scripted_lengths() -> None:
    work = coding_agent_sessions(3, seed=1, max_gap_s=1.0)
    short = replace(
        work, sessions=tuple(replace(one, turns=one.turns[:12]) for one in work.sessions)
    )
    summary, _, _ = loaded_rack(plan_of(short, num_sessions=3))
    assert summary.turns.failed == summary.turns.unfinished == 0
    assert summary.tokens.prompt_off_max == 0
    assert summary.tokens.cached_ratio is not None
    assert summary.tokens.cached_ratio > 0.8


def test_sub_agents_share_what_their_parent_has_heard() -> None:
    work = fan_out_sessions(1, seed=0, max_gap_s=1.0)
    _, run, _ = loaded_rack(plan_of(work, num_sessions=1))
    first = [turn for turn in run.log.turns if "/" in turn.session_id and turn.turn == 0]
    assert len(first) > 2
    for turn in first:
        assert turn.cached_tokens is not None
        assert turn.prompt_tokens is not None
        assert turn.cached_tokens > 0.6 * turn.prompt_tokens


def test_sessions_that_come_again_share_the_trunk_and_nothing_else() -> None:
    trunk = 20
    one = session("a", (trunk * BLOCK + 160, 5, 0.0))
    other = session("b", (trunk * BLOCK + 160, 5, 0.0))
    turn = other.turns[0]
    own = replace(turn, block_id_runs=((0, trunk - 1), (500, 509)))
    other = replace(other, turns=(own,))
    server = FaultyServer()
    phases = Phases(0, 0, 0.6, 10)
    loaded(server, plan_of(workload(one, other), num_sessions=1, phases=phases))
    texts = [body["messages"][0]["content"].split() for body in server.bodies[4:]]
    assert len(texts) >= 4
    first, again = texts[0], texts[2]
    # The server counts 12 tokens that are no words, so all but the last words of the trunk.
    assert texts[1][: trunk * BLOCK] == first[: trunk * BLOCK] == again[: trunk * BLOCK]
    assert texts[1][trunk * BLOCK :] != first[trunk * BLOCK :] != again[trunk * BLOCK :]


def test_another_salt_gives_other_prompts_and_the_same_salt_the_same() -> None:
    def first_prompt(salt: str) -> str:
        server = FaultyServer()
        loaded(server, plan_of(small_workload(1), num_sessions=1, salt=salt))
        return str(server.bodies[4]["messages"][0]["content"])

    assert first_prompt("a") == first_prompt("a")
    assert first_prompt("a")[:40] != first_prompt("b")[:40]


def test_the_next_prompt_has_the_server_s_reply_and_the_scripted_length() -> None:
    server = FaultyServer()
    plan = plan_of(workload(session("s", (200, 30, 0), (300, 10, 1))), num_sessions=1)
    summary, _ = loaded(server, plan)
    last = server.bodies[-1]["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "user"]
    assert last[1]["content"] == " word" * 30
    assert summary.tokens.prompt_off_max == 0
    assert summary.inputs.counts_from == "usage"


def test_filler_stands_for_replies_where_asked() -> None:
    server = FaultyServer()
    plan = plan_of(workload(session("s", (200, 30, 0), (300, 10, 1))), num_sessions=1)
    loaded(server, with_speech(plan, history=History.FILLER))
    reply = server.bodies[-1]["messages"][1]["content"]
    assert len(reply.split()) == 30
    assert "word" not in reply


def test_short_natural_replies_leave_prompts_as_long_as_scripted() -> None:
    server = FaultyServer(num_tokens=4)
    plan = plan_of(workload(session("s", (200, 80, 0), (400, 80, 1), (600, 80, 1))), num_sessions=1)
    summary, run = loaded(server, with_speech(plan, reply_length=ReplyLength.NATURAL))
    assert [turn.prompt_tokens for turn in run.log.turns] == [200, 400, 600]
    assert summary.tokens.output == 12
    assert any("the model ended them itself" in text for text in summary.warnings)


@pytest.mark.parametrize(
    ("identity", "header", "field"),
    [
        (SessionIdentity.HEADER, "x-session-id", None),
        (SessionIdentity.BODY, None, "session_id"),
        (SessionIdentity.CACHE_KEY, None, "prompt_cache_key"),
        (SessionIdentity.NONE, None, None),
    ],
)
def test_requests_name_their_session_as_asked(
    identity: SessionIdentity, header: str | None, field: str | None
) -> None:
    server = FaultyServer()
    plan = plan_of(small_workload(1, 2), num_sessions=1)
    loaded(server, with_speech(plan, identity=identity, headers={"x-tenant": "t"}))
    for headers, body in zip(server.headers[4:], server.bodies[4:], strict=True):
        assert headers["x-tenant"] == "t"
        assert headers.get("x-session-id") == ("s0" if header else None)
        named = {name: body[name] for name in ("session_id", "prompt_cache_key") if name in body}
        assert named == ({field: "s0"} if field else {})


@pytest.mark.parametrize(
    ("refused", "exact", "cap"),
    [
        ((), True, "max_tokens"),
        (("continuous_usage_stats",), True, "max_tokens"),
        (("ignore_eos",), False, "max_tokens"),
        (("ignore_eos", "continuous_usage_stats"), False, "max_tokens"),
        (("ignore_eos", '"max_tokens"', "continuous"), False, "max_completion_tokens"),
    ],
)
def test_the_form_that_the_server_takes_is_found(
    refused: tuple[str, ...], exact: bool, cap: str
) -> None:
    server = FaultyServer(refuses=refused)
    summary, run = loaded(server, plan_of(small_workload(2), num_sessions=1))
    assert run.server is not None
    form = run.server.requests.form
    assert (form.exact, form.cap_field) == (exact, cap)
    assert summary.turns.answered == 6
    assert any("refuses ignore_eos" in note for note in summary.notes) == (not exact)


def test_a_server_without_usage_is_counted_by_words_and_chunks() -> None:
    server = FaultyServer(usage=False, continuous=False)
    summary, _ = loaded(server, plan_of(small_workload(2), num_sessions=1))
    assert summary.inputs.counts_from == "assumed"
    assert any("no token counts" in note for note in summary.notes)
    assert summary.tokens.prompt is None
    assert summary.tokens.output == summary.tokens.output_wanted


def test_chunks_of_several_tokens_are_gaps_of_chunks_and_of_tokens() -> None:
    server = FaultyServer(tokens_per_chunk=5)
    plan = plan_of(workload(session("s", (200, 50, 0))), num_sessions=1)
    summary, run = loaded(server, plan)
    [turn] = run.log.turns
    assert turn.ttft_s == pytest.approx(FIRST_S)
    assert turn.tpot_s == pytest.approx(9 * 5 * TOKEN_S / 49)
    assert summary.itl_s.mean == pytest.approx(5 * TOKEN_S)
    assert summary.token_gap_s.mean == pytest.approx(TOKEN_S)
    assert summary.tokens.tokens_per_chunk == pytest.approx(5)


def test_a_role_chunk_is_no_first_token() -> None:
    plan = plan_of(workload(session("s", (200, 5, 0))), num_sessions=1)
    _, run = loaded(FaultyServer(continuous=False), plan)
    assert run.log.turns[0].first_tokens == 1
    assert len(run.log.turns[0].gaps_s) == 4


KINDS = {
    "status": "http_503",
    "no stream": "no_stream",
    "raise": "connection",
    "silence": "timeout",
    "empty": "empty_reply",
    "break": "broken_stream",
    "end early": "broken_stream",
    "garbage": "broken_stream",
    "error event": "error_in_stream",
    "stall": "timeout",
}


@pytest.mark.parametrize(("fault", "kind"), KINDS.items())
def test_faults_are_counted_by_kind_and_end_their_session(fault: str, kind: str) -> None:
    def of_second_turn(body: dict, number: int) -> str | None:
        return fault if len(body["messages"]) == 3 and number > 4 else None

    plan = with_speech(plan_of(small_workload(3, 3), num_sessions=3), timeout_s=30.0)
    summary, run = loaded(FaultyServer(of_second_turn), plan)
    [error] = summary.errors
    assert (error.kind, error.count) == (kind, 3)
    assert error.example.startswith("s0, turn 1: ")
    assert (summary.turns.answered, summary.turns.failed) == (3, 3)
    assert summary.sessions.failed == 3
    assert summary.jct_s.mean is None
    assert {one.end for one in run.log.sessions} == {SessionEnd.FAILED}
    if kind == "timeout":
        assert 30 <= error.first_s <= 34


def test_a_session_goes_on_after_an_error_where_asked() -> None:
    def of_second_turn(body: dict, number: int) -> str | None:
        return "break" if len(body["messages"]) == 3 and number > 4 else None

    server = FaultyServer(of_second_turn)
    plan = plan_of(small_workload(2, 3), num_sessions=2, after_error=AfterError.GO_ON)
    summary, _ = loaded(server, plan)
    assert (summary.turns.answered, summary.turns.failed) == (4, 2)
    assert summary.sessions.completed == 2
    assert summary.goodput.sessions == 0
    last = server.bodies[-1]["messages"]
    assert [message["role"] for message in last] == ["user", "assistant"] * 2 + ["user"]


@pytest.mark.parametrize("fault", ["status", "raise", "empty"])
def test_a_server_that_fails_the_first_request_is_not_loaded(fault: str) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        loaded(FaultyServer(lambda body, number: fault), plan_of(small_workload()))
    assert raised.group_contains(BackendError, match="the first request failed")


def test_a_server_that_refuses_every_form_is_told() -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        loaded(FaultyServer(refuses=("messages",)), plan_of(small_workload()))
    assert raised.group_contains(BackendError, match="refuses every form .*unknown field messages")


def test_an_open_loop_does_not_wait_for_a_slow_server() -> None:
    arrives_s = tuple(float(index) for index in range(10))
    work = workload(
        *(session(f"s{index}", (200, 5, 0)) for index in range(10)), arrives_s=arrives_s
    )
    server = FaultyServer(first_s=100.0)
    summary, run = loaded(server, plan_of(work, "trace", None))
    began_s = server.at_s[4]
    assert [at_s - began_s for at_s in server.at_s[4:]] == pytest.approx(arrives_s)
    assert summary.throughput.streams_max == 10
    assert all(turn.ttft_s == pytest.approx(100.0) for turn in run.log.turns)


def test_a_closed_loop_keeps_so_many_sessions_and_no_more() -> None:
    summary, _ = loaded(FaultyServer(), plan_of(small_workload(9, 1), num_sessions=4))
    assert summary.throughput.streams_max == 4
    assert summary.sessions.completed == 9


def test_ramp_warm_up_and_drain_do_not_count() -> None:
    phases = Phases(ramp_s=4.0, warmup_s=2.0, duration_s=10.0, drain_s=5.0)
    server = FaultyServer()
    summary, run = loaded(server, plan_of(small_workload(2, 9), num_sessions=4, phases=phases))
    due = [turn for turn in run.log.turns if 6.0 <= turn.due_s < 16.0]
    assert summary.turns.due == summary.turns.answered == len(due) < len(run.log.turns)
    assert max(turn.due_s for turn in run.log.turns) < 16.0
    assert summary.window.length_s == 10.0
    first = [turn.due_s for turn in run.log.turns if turn.turn == 0][:4]
    assert first == pytest.approx([0, 1, 2, 3])
    at_s = np.array([turn.due_s for turn in run.log.turns])
    assert np.sum((at_s > 6) & (at_s < 16)) > 20


def test_turns_that_never_end_are_told_and_count_as_bad() -> None:
    def every_third(body: dict, number: int) -> str | None:
        return "stall" if number > 4 and number % 3 == 0 else None

    phases = Phases(0.0, 0.0, 10.0, 5.0)
    plan = plan_of(
        small_workload(2, 3), num_sessions=4, phases=phases, objectives=Objectives(1.0, 1.0)
    )
    summary, run = loaded(FaultyServer(every_third), plan)
    assert run.ended_s == pytest.approx(15.0)
    assert summary.turns.unfinished == 4
    assert summary.goodput.turn_ratio == summary.turns.answered / summary.turns.due
    assert any("--drain" in text for text in summary.warnings)


def test_goodput_counts_turns_and_sessions_within_the_objectives() -> None:
    def slow(body: dict, number: int) -> str | None:
        return None

    work = workload(session("s", (200, 5, 0), (300, 50, 1)), session("t", (200, 5, 0)))
    plan = plan_of(work, num_sessions=1)
    within = replace(plan, objectives=Objectives(ttft_s=FIRST_S * 1.01, tpot_s=TOKEN_S * 1.01))
    summary, _ = loaded(FaultyServer(slow), within)
    assert summary.goodput.turn_ratio == summary.goodput.session_ratio == 1
    beyond = replace(plan, objectives=Objectives(ttft_s=FIRST_S * 0.99))
    summary, _ = loaded(FaultyServer(slow), beyond)
    assert summary.goodput.turn_ratio == summary.goodput.session_ratio == 0


def test_a_client_that_uses_up_its_core_says_so() -> None:
    plan = plan_of(small_workload(2, 3), phases=Phases(0.0, 0.0, 10.0, 5.0))
    summary, _ = loaded(FaultyServer(), plan, cpu_s=lambda: 0.9 * anyio.current_time())
    assert summary.client.cpu_share == pytest.approx(0.9)
    assert summary.client.is_limit
    assert summary.warnings[0].startswith("the client was the limit")
    assert "90% of a core" in summary.warnings[0]


def test_an_interrupted_run_tells_what_it_has_seen() -> None:
    phases = Phases(2.0, 2.0, 100.0, 10.0)
    plan = plan_of(small_workload(2, 3), num_sessions=3, phases=phases)
    summary, _ = loaded(FaultyServer(), plan, stop_after_s=20.0)
    assert summary.interrupted
    assert summary.turns.answered > 10
    assert 15 < summary.window.end_s < 20


def test_a_run_interrupted_in_its_warm_up_tells_all_it_has_seen() -> None:
    phases = Phases(50.0, 50.0, 100.0, 10.0)
    plan = plan_of(small_workload(2, 3), num_sessions=3, phases=phases)
    summary, _ = loaded(FaultyServer(), plan, stop_after_s=20.0)
    assert summary.turns.answered > 3
    assert any("all turns count" in text for text in summary.warnings)


def test_tool_gaps_lie_between_turns_and_can_be_scaled() -> None:
    work = workload(session("s", (200, 5, 0), (300, 5, 4.0), (400, 5, 8.0)))
    _, run = loaded(FaultyServer(), plan_of(work, num_sessions=1, gap_scale=0.5))
    first, second, third = run.log.turns
    assert second.due_s - first.ended_s == pytest.approx(2.0)
    assert third.due_s - second.ended_s == pytest.approx(4.0)
    assert not any(math.isnan(turn.sent_s) for turn in run.log.turns)


@pytest.mark.parametrize(
    ("arrival", "num", "problem"),
    [("trace", None, "does not say when"), ("closed", None, "--sessions")],
)
def test_plans_that_can_not_be_run_are_refused(arrival: str, num: int | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        plan_of(small_workload(), arrival, num).check()
