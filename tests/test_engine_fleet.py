"""Engines that join, fail, drain and leave; and what is learned of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.backends.vllm_servers.circuit_breaker import (
    BreakerSettings,
    BreakerState,
    CircuitBreaker,
)
from agent_runtime.backends.vllm_servers.engine_discovery import (
    EngineDirectory,
    EngineSources,
    engine_url,
    parse_engines,
)
from agent_runtime.backends.vllm_servers.engine_facts import EngineFacts, EventSource, reachable
from agent_runtime.backends.vllm_servers.engine_fleet import EngineAddress, EngineFleet, SlotState
from agent_runtime.backends.vllm_servers.engine_metrics import EngineMetrics, parse_metrics
from agent_runtime.backends.vllm_servers.engine_watch import MOMENTS, until_next_look_s
from agent_runtime.backends.vllm_servers.token_counts import TokenCounts
from agent_runtime.cli.main import main
from agent_runtime.errors import ConfigError, InternalError
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch
from scheduler.events import ReplicaDown, ReplicaUp, TurnArrived
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.measured_cost import MeasuredCost
from scheduler.policies import POLICIES, make_policy
from scheduler.rack import ReplicaFleet
from tests.racks import policy_setup

METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a\\"b"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:cache_config_info{block_size="128",engine="0",num_gpu_blocks="160",sliding_window="None"} 1.0
"""


def facts(*models: str) -> EngineFacts:
    return EngineFacts(tuple({"id": name} for name in models), EngineMetrics(), None)


@given(st.floats(0, 1e6), st.sampled_from([0.02, 1.0, 7.0]))
def test_engines_are_looked_at_a_few_at_a_time_and_each_about_once_a_period(
    now_s: float, poll_s: float
) -> None:
    moments: Counter[int] = Counter()
    for number in range(128):
        wait_s = until_next_look_s(now_s, ReplicaId(number), poll_s)
        assert 0.5 * poll_s <= wait_s <= 1.5 * poll_s
        after_s = now_s + wait_s
        assert until_next_look_s(after_s, ReplicaId(number), poll_s) == pytest.approx(
            poll_s, rel=1e-3, abs=1e-6
        )
        moments[round(after_s % poll_s / poll_s * MOMENTS) % MOMENTS] += 1
    assert set(moments.values()) == {128 // MOMENTS}


def test_metrics_are_read_as_vllm_writes_them() -> None:
    assert parse_metrics(METRICS) == EngineMetrics(3, 2, 0.25, 160, 128)
    assert parse_metrics(METRICS).kv_tokens == 160 * 128
    assert parse_metrics("") == EngineMetrics()


def test_the_breaker_opens_after_some_failures_in_a_row_and_probes_ever_more_rarely() -> None:
    breaker = CircuitBreaker(BreakerSettings(3, first_wait_s=1, max_wait_s=3))
    breaker.failed(0)
    breaker.failed(0)
    breaker.succeeded()
    breaker.failed(0)
    breaker.failed(0)
    assert breaker.is_closed
    breaker.failed(0)
    assert str(breaker.state) == str(BreakerState.OPEN)
    breaker.succeeded()  # of a turn sent before
    assert not breaker.may_probe(0.9)
    for at_s, wait_s in ((1.0, 2.0), (3.0, 3.0), (6.0, 3.0)):
        assert breaker.may_probe(at_s)
        assert str(breaker.state) == str(BreakerState.HALF_OPEN)
        breaker.failed(at_s)
        assert not breaker.may_probe(at_s + wait_s - 0.1)
    assert breaker.may_probe(9.0)
    breaker.succeeded()
    assert breaker.is_closed
    breaker.failed(9.0, certain=True)
    assert not breaker.is_closed


def test_engines_take_slots_and_give_them_back_and_the_scheduler_hears_of_it() -> None:
    fleet = EngineFleet(2)
    told: list[object] = []
    notices: list[str] = []
    fleet.on_change, fleet.notice = told.append, notices.append
    a, b, c = (EngineAddress(f"http://{name}:1") for name in "abc")
    first, second = fleet.reconcile([a, b, c])
    fleet.reconcile([a, b, c])
    assert [notice for notice in notices if "raise --max-engines" in notice] == notices
    assert len(notices) == 1
    fleet.present(first, facts("m"))
    fleet.present(second, facts("other"))
    assert told == [ReplicaUp(ReplicaId(0))]
    assert "not m" in second.problem
    first.turns[TurnId("t")] = SessionId("s")
    assert fleet.reconcile([b, c]) == []
    assert told[1:] == [ReplicaDown(ReplicaId(0))]
    assert str(first.state) == str(SlotState.DRAINING)
    fleet.reconcile([a, b])
    fleet.present(first, facts("m"))
    assert told[2:] == [ReplicaUp(ReplicaId(0))]
    fleet.reconcile([b])
    first.turns.clear()
    fleet.leave_if_drained(first)
    assert str(first.state) == str(SlotState.EMPTY)
    assert fleet.reconcile([b, c]) == [first]
    fleet.fail(first, 0.0, "gone", certain=True)
    assert fleet.num_up == 0
    with pytest.raises(InternalError, match="went from"):
        fleet._to(fleet.slots[1], SlotState.DOWN)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://a:1/x", "line 1"),
        ("ftp://a:1", "expected http"),
        ("\nhttp://a:99999999", "line 2"),
        ("[[engine]]\nurl = 3", "url must be a string"),
        ("[[engine]]\nport = 3", "known keys"),
        ("[engine", "engines"),
        ('[[engine]]\nurl = "http://a:1"\ndrain = "yes"', "true or false"),
    ],
)
def test_a_file_of_engines_that_is_wrong_is_told_where(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_engines(text, "engines")


def test_a_file_of_engines_has_urls_or_tables() -> None:
    assert parse_engines("http://a:1/v1  # one\n\n#\nhttp://b:2/\n", "f") == [
        EngineAddress("http://a:1"),
        EngineAddress("http://b:2"),
    ]
    tables = '[[engine]]\nurl = "http://a:1"\ndrain = true\nkv_events = "tcp://a:5"\n'
    assert parse_engines(tables, "f") == [
        EngineAddress("http://a:1", drain=True, events=EventSource("tcp://a:5"))
    ]
    assert engine_url("https://[::1]:8/v1", "x") == "https://[::1]:8"
    assert reachable("tcp://*:5557", "::1") == "tcp://[::1]:5557"
    assert reachable("tcp://10.0.0.1:5557", "h") == "tcp://10.0.0.1:5557"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_engines_are_found_by_name_and_stay_while_a_file_cannot_be_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "engines"
    file.write_text("http://a:1")
    notices: list[str] = []
    sources = EngineSources(["http://z:9"], str(file), [("localhost", 7)])
    changes = EngineDirectory(sources, notices.append, reread_s=0.01).changes()
    with anyio.fail_after(5):
        found = {address.url for address in await anext(changes)}
        assert {"http://z:9", "http://a:1"} < found
        assert any(url.endswith(":7") for url in found)
        file.write_text("[[engine")
        async with anyio.create_task_group() as tasks:

            async def mend() -> None:
                while not notices:
                    await anyio.sleep(0.01)
                file.write_text("http://b:1")

            tasks.start_soon(mend)
            again = {address.url for address in await anext(changes)}
        assert again == found - {"http://a:1"} | {"http://b:1"}
        assert len(notices) == 1
        await changes.aclose()


def test_the_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    for options, problem in (
        (["--engine", "10.0.0.1:8000"], "expected http://HOST:PORT"),
        (["--engines-dns", "name"], "expected NAME:PORT"),
        (["--engine", "http://a:1", "--speed", "2"], "--speed is of the emulated rack"),
        (["--engine", "http://a:1", "--paced", "http://b/v1"], "--paced is of the emulated rack"),
    ):
        assert main(["serve", *options]) == 2
        assert problem in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--engine", "http://127.0.0.1:9", "--wait-s", "0.2"]) == 1
    assert "no engine came up in 0.2 s" in capsys.readouterr().err


@given(st.floats(0.001, 1), st.floats(1e-6, 1e-3), st.lists(st.integers(1, 100_000), min_size=300))
def test_prefill_times_that_lie_on_a_line_are_learned(
    fixed_s: float, slope_s: float, sizes: list[int]
) -> None:
    cost = MeasuredCost()
    for size in sizes:
        cost.observe(size, fixed_s + slope_s * size)
    if max(sizes) > 4 * min(sizes):
        mean = sum(sizes) / len(sizes)
        wanted = fixed_s + slope_s * mean
        assert cost.prefill_s(0, round(mean)) == pytest.approx(wanted, rel=0.5)
    assert cost.prefill_s(10, 20) > 0
    for _ in range(2000):
        cost.observe_decode(fixed_s)
    assert cost.decode_s == pytest.approx(fixed_s, rel=0.01, abs=1e-5)
    assert cost.prefill_s(10, 100) <= cost.prefill_s(0, 100)


def test_what_is_new_in_a_prompt_is_estimated_and_the_rest_known() -> None:
    counts, a, b = TokenCounts(), SessionId("a"), SessionId("b")
    assert counts.estimate(a, 100) == 100
    counts.learn(a, 150, 100)
    assert counts.estimate(a, 100) == 150
    assert counts.estimate(a, 120) == 180
    assert counts.estimate(a, 10) == 15
    assert counts.estimate(b, 100) == 105  # as far as one turn can tell
    counts.forget(a)
    assert counts.scale(a) == counts.scale(b)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "clairvoyant"])
def test_a_turn_runs_again_elsewhere_if_there_is_an_elsewhere(policy: str) -> None:
    setup = policy_setup(3, 100_000)
    scheduler = ClusterScheduler(ReplicaFleet(3, 100_000), make_policy(policy, setup))

    def placed(name: str, *avoid: int) -> set[int]:
        shunned = frozenset(map(ReplicaId, avoid))
        arrived = TurnArrived(TurnId(name), SessionId(name), 1000, 10, avoid=shunned)
        commands = scheduler.handle(arrived, 0.0)
        return {command.replica_id for command in commands if isinstance(command, Dispatch)}

    assert placed("a", 0, 1) == {2}
    assert placed("b", 1, 2) == {0}
    assert placed("c", 0, 1, 2)
    scheduler.handle(ReplicaDown(ReplicaId(1)), 0.0)
    assert placed("d", 0) == {2}
    assert placed("e", 0, 2) <= {0, 2}
    scheduler.check_invariants()
