"""Parts of the look-alikes on their own: metrics text, replay buffer, lateness, the command."""

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx2
import prometheus_client
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent_runtime.cli.main import main
from agent_runtime.clock import Clock, monotonic_s
from agent_runtime.look_alikes.engine_meter import EngineMeter, token_bounds
from agent_runtime.look_alikes.kv_event_publisher import ReplayBuffer
from agent_runtime.look_alikes.lateness import (
    LatenessMeter,
    LatenessSummary,
    too_late,
    watch_lateness,
)
from agent_runtime.look_alikes.look_alikes import shares
from agent_runtime.look_alikes.prometheus_text import Histogram, MetricKind, MetricsPage, quantile
from agent_runtime.turns import TurnProgress, TurnRequest
from scheduler.ids import SessionId, TurnId
from tests.engines import chain, deployment, engine, request

BOUNDS = (0.1, 1.0, 5.0)
values = st.lists(st.floats(0, 10), max_size=30)


@given(values)
def test_a_histogram_is_written_as_prometheus_own_client_writes_it(observed: list[float]) -> None:
    ours, page = Histogram(BOUNDS), MetricsPage()
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram(
        "a:seconds", "About.", ["who"], buckets=BOUNDS, registry=registry
    ).labels('x"\\\ny')
    for value in observed:
        ours.observe(value)
        theirs.observe(value)
    page.histogram("a:seconds", "About.", {"who": 'x"\\\ny'}, ours)
    (family,) = text_string_to_metric_families(page.text())
    expected = prometheus_client.generate_latest(registry).decode()
    expected_family = next(iter(text_string_to_metric_families(expected)))
    wanted = {
        (s.name, *sorted(s.labels.items())): s.value
        for s in expected_family.samples
        if not s.name.endswith("_created")
    }
    assert {(s.name, *sorted(s.labels.items())): s.value for s in family.samples} == wanted


def test_a_counter_has_its_suffix_where_prometheus_has_it() -> None:
    page = MetricsPage()
    page.value("a:b", MetricKind.COUNTER, "About.", [({}, lambda: 3)])
    (family,) = text_string_to_metric_families(page.text())
    assert [(s.name, s.value) for s in family.samples] == [("a:b_total", 3)]


@given(values.filter(bool), st.floats(0.01, 1))
@example([0.0, 0.0, 0.0], 1.0)
def test_a_quantile_is_in_the_bucket_where_it_lies(observed: list[float], share: float) -> None:
    histogram = Histogram(BOUNDS)
    for value in observed:
        histogram.observe(value)
    exact = sorted(observed)[max(0, math.ceil(share * len(observed)) - 1)]
    found = quantile(BOUNDS, histogram.counts, share)
    bucket = sum(bound < exact for bound in BOUNDS)
    lower = (0.0, *BOUNDS)[bucket]
    upper = (*BOUNDS, BOUNDS[-1])[bucket]
    assert min(lower, BOUNDS[-1]) <= found <= upper


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 10), st.integers(40, 100))
def test_a_replay_buffer_keeps_the_latest_within_its_bounds(
    sizes: list[int], max_batches: int, max_bytes: int
) -> None:
    buffer = ReplayBuffer(max_batches, max_bytes)
    messages = [[b"", b"", bytes(size)] for size in sizes]
    for sequence, message in enumerate(messages):
        buffer.keep(sequence, message)
    kept = buffer.since(0)
    assert kept == messages[len(messages) - len(kept) :]
    assert len(kept) <= max_batches
    assert sum(len(message[-1]) for message in kept) <= max_bytes
    one_more = messages[len(messages) - len(kept) - 1 :] if len(kept) < len(messages) else []
    if one_more:
        too_many = len(one_more) > max_batches
        assert too_many or sum(len(message[-1]) for message in one_more) > max_bytes
    assert buffer.since(len(messages)) == []


def test_lateness_counts_our_delay_and_not_the_readers() -> None:
    meter = LatenessMeter(Clock(origin_s=monotonic_s() - 100.0))
    due_100_s_ago = TurnProgress(1, 0, finished=False, due_s=0.0)
    meter.count(due_100_s_ago, asked_at=monotonic_s())
    assert LatenessSummary.of([meter.histogram.counts]).keeps_time
    meter.count(due_100_s_ago, asked_at=0.0)
    meter.count(TurnProgress(1, 0, finished=False), asked_at=0.0)  # from no emulated engine
    late = LatenessSummary.of([meter.histogram.counts])
    assert late.num_batches == 2
    assert not late.keeps_time
    assert "can't keep up" in too_late(late)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_while_of_late_tokens_is_warned_of_and_one_in_time_is_not() -> None:
    counts, looks = [0] * 31, 0
    warnings: list[str] = []

    def summary() -> LatenessSummary:
        nonlocal looks
        looks += 1
        counts[25 if looks == 3 else 2] += 1_000
        return LatenessSummary.of([counts])

    with anyio.move_on_after(10) as scope:

        async def wait_for_looks() -> None:
            while looks < 6:
                await anyio.sleep(0.001)
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch_lateness, summary, warnings.append, 0.001)
            tasks.start_soon(wait_for_looks)
    assert len(warnings) == 1
    assert "1,000 token batches" in warnings[0]


def test_lateness_of_several_replicas_adds_up_and_of_a_while_is_the_difference() -> None:
    counts = [[0] * 31 for _ in range(2)]
    counts[0][3], counts[1][20] = 99, 1
    both = LatenessSummary.of(counts)
    assert both.num_batches == 100
    assert both.since(both).num_batches == 0
    assert both.since(LatenessSummary.of([counts[1]])).counts == tuple(counts[0])
    assert LatenessSummary.of([]).describe() == "no tokens were sent"


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 30), st.floats(0, 0.3)),
        min_size=1,
        max_size=12,
    )
)
def test_what_an_engine_did_is_metered_token_for_token(
    asked: list[tuple[int, int, float]],
) -> None:
    core, meter = engine(num_blocks=40), EngineMeter(160)
    arrivals = sorted(
        ((at_s, number, prompt, output) for number, (prompt, output, at_s) in enumerate(asked)),
    )
    for at_s, number, prompt, output in arrivals:
        advance(core, meter, at_s)
        one = request(str(number), prompt, output, chain(number, prompt // 4))
        turn = TurnRequest(TurnId(str(number)), SessionId("s"), prompt, output, ())
        core.add(one, at_s)
        meter.submitted(turn, one, at_s)
    advance(core, meter, 1e9)
    total = sum(output for _, output, _ in asked)
    assert meter.num_generated_tokens == total
    assert meter.num_prompt_tokens == sum(prompt for prompt, _, _ in asked)
    assert meter.num_stopped + meter.num_at_limit == len(asked)
    assert sum(meter.token_latency_s.counts) == total - len(asked)
    parts = meter.queue_s.total + meter.prefill_s.total + meter.decode_s.total
    assert parts == pytest.approx(meter.e2e_s.total)
    assert meter.preemptions.total == core.stats().num_preemptions
    assert min(meter.queue_s.total, meter.prefill_s.total, meter.decode_s.total) >= 0


def advance(core, meter: EngineMeter, to_s: float) -> None:
    while core.next_event_s is not None and core.next_event_s <= to_s:
        at_s = core.next_event_s
        meter.stepped(at_s, core.advance(at_s))


def test_the_buckets_of_token_counts_are_vllms() -> None:
    assert token_bounds(120) == (1, 2, 5, 10, 20, 50, 100)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 8])
def test_processes_share_all_replicas_evenly(num_processes: int) -> None:
    parts = shares(deployment(num_replicas=8), num_processes)
    firsts = [first for first, _ in parts]
    counts = [part.num_replicas for _, part in parts]
    assert firsts == [sum(counts[:number]) for number in range(num_processes)]
    assert sum(counts) == 8
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--processes", "3"], "--processes 3: there are 2 replicas"),
        (["--base-port", "65535"], "--base-port 65535: 2 ports from there end above 65535"),
        (["--kv-replay-base-port", "6000"], "needs --kv-events-base-port"),
        (["--kv-events-base-port", "9001"], "overlap those of --base-port 9000"),
        (["--model", "gpt-9"], "unknown model 'gpt-9'"),
        (["--replicas", "500"], "500 replicas x TP1 need 500 chips"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_is_right(
    capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    assert main(["emulate", "--replicas", "2", "--model", "qwen3-8b", *args]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@contextmanager
def emulate(*args: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    command = [sys.executable, "-m", "agent_runtime.cli.main", "emulate", "--model", "qwen3-8b"]
    with subprocess.Popen([*command, *args], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "Ctrl-C" in line:
                break
        try:
            yield process, re.findall(r"http://127\.0\.0\.1:\d+", said)
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_from_several_processes_and_ends_with_its_lateness(
    number: signal.Signals,
) -> None:
    args = ["--replicas", "2", "--processes", "2", "--base-port", "0", "--speed", "100"]
    with emulate(*args) as (process, urls):
        assert len(urls) == 2
        for url in urls:
            body = b'{"messages": [{"role": "user", "content": "Plan."}], "max_tokens": 3}'
            answer = httpx2.post(f"{url}/v1/chat/completions", content=body)
            assert answer.status_code == 200
        os.kill(process.pid, number)
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(20) == 0
    assert "stopped: " in rest
    assert "token batches, late by p50" in rest


def test_a_taken_port_is_named() -> None:
    with emulate("--replicas", "1", "--base-port", "0") as (_, urls):
        port = urls[0].rpartition(":")[2]
        command = [sys.executable, "-m", "agent_runtime.cli.main", "emulate"]
        command += ["--model", "qwen3-8b", "--replicas", "1", "--base-port", port]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"can't listen on 127.0.0.1:{port}" in refused.stderr
    assert "choose another --host or --base-port" in refused.stderr


def test_a_process_that_breaks_off_ends_the_command_with_1_and_a_word() -> None:
    with emulate("--replicas", "2", "--processes", "2", "--base-port", "0") as (process, _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("needs Linux's /proc with children")
        shares_of_rack = [
            int(child)
            for child in children.read_text().split()
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        assert len(shares_of_rack) == 2
        os.kill(shares_of_rack[0], signal.SIGKILL)
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(20) == 1
    assert "a process of the emulation broke off" in rest
    assert not Path(f"/proc/{shares_of_rack[1]}").exists()
