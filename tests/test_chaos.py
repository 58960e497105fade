"""Seeds of ``tests/chaos``: promises are kept, a seed is the same again, what breaks is found."""

import pytest

from agent_runtime.backends.vllm_servers import kv_feed
from agent_runtime.gateway.journal.response_journal import ResponseJournal
from agent_runtime.gateway.relay.chat_replies import StreamedReply
from agent_runtime.sdk.replay import Replay
from tests.chaos.fault_plan import Fault, plan_of
from tests.chaos.simulation import run_plan


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_promises_are_kept_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + 10):
        outcome = run_plan(plan_of(seed))
        assert outcome.problem is None, f"python -m tests.chaos --seed {seed}\n{outcome.problem}"


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_alone_is_lived_through(fault: Fault) -> None:
    outcome = run_plan(plan_of(7, only=lambda one: one is fault))
    assert outcome.problem is None
    assert any(fault in line for line in outcome.log)


@pytest.mark.parametrize("seed", [14381, 15566])
def test_an_engine_that_comes_to_the_expected_number_anew_is_told_apart(seed: int) -> None:
    assert run_plan(plan_of(seed)).problem is None


def test_a_seed_is_the_same_run_every_time() -> None:
    first, second = (run_plan(plan_of(11)) for _ in range(2))
    assert first.log == second.log
    assert first.num_attempts > 0


def test_a_reply_that_goes_on_one_word_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets_the_last_word(self: StreamedReply) -> str | None:
        text = whole(self)
        return text.rsplit(" ", 2)[0] + " " if text and text.count(" ") > 1 else text

    whole = StreamedReply.text_to_go_on_with
    monkeypatch.setattr(StreamedReply, "text_to_go_on_with", forgets_the_last_word)
    outcomes = [run_plan(plan_of(s, only=lambda one: one is Fault.RESET)) for s in range(40)]
    problems = [outcome.problem for outcome in outcomes if outcome.problem is not None]
    assert any("was answered" in problem for problem in problems)


def test_residency_that_never_asks_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_feed, "QUIET_S", 1e6)
    outcomes = [run_plan(plan_of(seed)) for seed in (5, 21, 31)]
    problems = [outcome.problem for outcome in outcomes if outcome.problem is not None]
    assert any("is said to have" in problem for problem in problems)


def test_answers_that_a_restart_forgets_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResponseJournal, "ended", lambda *_: None)
    only = (Fault.GATEWAY_RESTART, Fault.CRASH)
    outcomes = [run_plan(plan_of(seed, only=lambda one: one in only)) for seed in range(12)]
    problems = [outcome.problem for outcome in outcomes if outcome.problem is not None]
    assert any("status 404" in problem for problem in problems)


def test_tool_calls_that_are_made_again_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replay, "result_of", lambda *_: None)
    outcomes = [run_plan(plan_of(seed)) for seed in (12, 18)]
    problems = [outcome.problem for outcome in outcomes if outcome.problem is not None]
    assert any("was made again" in problem for problem in problems)
