"""Recordings of runs: pages that play them again, from simulations, programs and event logs."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.cli.main import main
from agent_runtime.measurement.decision_reading import read_decisions
from agent_runtime.rack_view.layouts import emulated_layout
from agent_runtime.rack_view.messages import encoded
from agent_runtime.rack_view.reckoned_gauges import ReckonedGauges
from agent_runtime.rack_view.recorder import ViewRecorder
from agent_runtime.workload.trace_lines import numbered_lines
from hw_model.claim import Band
from scheduler.commands import Dispatch, Drop, Pull
from scheduler.decision import Decision
from scheduler.events import ReplicaDown, TurnArrived, TurnEnded, Woken
from scheduler.ids import ReplicaId, SessionId, TurnId
from tests.engines import deployment
from tests.rack_view_client import Watcher, watched

SMALL = ["--limit", "6", "--model", "qwen3-8b", "--replicas", "2"]
PROGRAM = """
import asyncio, openai

async def main():
    async with openai.AsyncOpenAI() as client:
        for _ in range(3):
            await client.chat.completions.create(
                model="any", max_tokens=9, messages=[{"role": "user", "content": "hello"}],
                extra_body={"session_id": "mine"})
            await asyncio.sleep(4)

asyncio.run(main())
"""


def simulate(*options: str) -> None:
    assert main(["simulate", *SMALL, *options]) == 0


def lines_of(page: Path) -> bytes:
    """Return the messages that a page plays."""
    found = re.search(
        r'<script type="application/octet-stream;base64" id="recording">([^<]*)<', page.read_text()
    )
    assert found is not None
    return gzip.decompress(b64decode(found.group(1)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run's event log, and two recordings of it."""
    folder = tmp_path_factory.mktemp("run")
    out, log = str(folder / "run.jsonl"), str(folder / "events.jsonl")
    simulate("--band", "base", "--replay", out, "--event-log", log)
    return folder


def test_a_recording_tells_of_the_whole_run(run: Path, tmp_path: Path) -> None:
    log = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    watcher = watched((run / "run.jsonl").read_bytes())
    assert watcher.layout["source"] == "recording"
    assert watcher.layout["fill"] == "reported"
    assert watcher.layout["speed"] == 1.0
    ended = [line for line in log if line["event"] == "turn_ended"]
    assert watcher.last["totals"]["turns"] == len(ended)
    assert watcher.last["t"] == round(log[-1]["t"], 4)
    assert not watcher.sessions
    pulls = [one for line in log for one in line.get("do", ()) if one["do"] == "pull"]
    assert len(watcher.moves) == len(pulls)
    assert max(row[2] for row in watcher.last["replicas"]) > 0
    assert len(watcher.stories) >= min(300, len(ended))
    slowest = max(
        watcher.stories.values(), key=lambda story: story["prefilled_s"] - story["arrived_s"]
    )
    assert slowest["receipts"][-1][1]["chosen"] == slowest["replica"]


def test_the_same_run_is_the_same_page_to_the_byte_and_of_the_base_band(
    run: Path, tmp_path: Path
) -> None:
    one, other = tmp_path / "one.html", tmp_path / "other.html"
    simulate("--band", "base", "--replay", str(one))
    simulate("--band", "all", "--replay", str(other))
    assert one.read_bytes() == other.read_bytes()
    assert lines_of(one) == (run / "run.jsonl").read_bytes()


def test_an_event_log_plays_the_same_run_with_the_fill_reckoned(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "replay.html"
    machine = ["--model", "qwen3-8b", "--replicas", "2"]
    assert main(["replay", str(run / "events.jsonl"), *machine, "--out", str(out)]) == 0
    recorded = [json.loads(line) for line in (run / "run.jsonl").read_bytes().splitlines()]
    replayed = [json.loads(line) for line in lines_of(out).splitlines()]
    watched(lines_of(out))
    assert replayed[0] == {**recorded[0], "fill": "reckoned"}
    assert replayed[-1] == recorded[-1]
    for one, other in zip(replayed[1:-1], recorded[1:-1], strict=True):
        assert {**one, "replicas": None} == {**other, "replicas": None}
    assert max(row[2] for row in replayed[-2]["replicas"]) > 0


def test_a_gzipped_log_will_do_too(run: Path, tmp_path: Path) -> None:
    zipped, plain = tmp_path / "events.jsonl.gz", tmp_path / "plain.jsonl"
    zipped.write_bytes(gzip.compress((run / "events.jsonl").read_bytes()))
    for log, out in [(zipped, tmp_path / "zipped.jsonl"), (run / "events.jsonl", plain)]:
        assert main(["replay", str(log), "--model", "qwen3-8b", "--out", str(out)]) == 0
    assert (tmp_path / "zipped.jsonl").read_bytes() == plain.read_bytes()


ARRIVED = (
    '{"t":1.0,"event":"turn_arrived","turn":"a#0","session":"a","prompt_tokens":9,'
    '"output_tokens":1,"do":[{"do":"dispatch","turn":"a#0","replica":0}]}'
)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "line 2: not a line of an event log"),
        ('{"t":2,"event":"prefill_ended","turn":"a#0"}', "line 2: .*`cached_tokens`"),
        ('{"t":2,"event":"prefill_ended","turn":7,"cached_tokens":0}', "line 2: turn: .*`str`"),
        ('{"t":2,"event":"lunch"}', "line 2: event: .*'lunch'"),
        ('{"t":0.5,"event":"woken"}', "line 2: t: 0.5 is before the 1.0"),
        (
            '{"t":2,"event":"woken","do":[{"do":"drop","session":"a","replica":2}]}',
            r"line 2: do\[0\].replica: replica 2, but there are 2 here .*--replicas",
        ),
        ('{"t":2,"event":"replica_down","replica":-1}', "line 2: replica: replica -1"),
        (
            '{"t":2,"event":"woken","why":[{"turn":"a#0","chosen":0,"due":false,"options":[{}]}]}',
            r"line 2: why\[0\].options\[0\]: .*`replica`",
        ),
    ],
)
def test_a_log_with_a_wrong_line_is_an_error_that_names_it(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out.html"
    log.write_text(f"{ARRIVED}\n{line}\n")
    command = ["replay", str(log), "--model", "qwen3-8b", "--replicas", "2", "--out", str(out)]
    assert main(command) == 1
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
    assert not out.exists()


def test_what_can_t_be_a_recording_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("")
    for command, code, said in [
        (["replay", str(log), "--out", str(tmp_path / "o.html")], 1, "no decision in it"),
        (["replay", str(tmp_path / "none"), "--out", "o.html"], 2, "simulate --event-log"),
        (["replay", str(log), "--out", "no/such/o.html"], 2, "not a file in an existing"),
        (["simulate", *SMALL, "--replay", "no/such/o.html"], 2, "--replay no/such/o.html"),
    ]:
        assert main(command) == code
        assert said in " ".join(capsys.readouterr().err.split())
    for command in (
        ["simulate", *SMALL, "--replay", "run.pdf"],
        ["run", "program.py", "--virtual", "--replay", "run.pdf"],
        ["replay", str(log), "--out", "run.pdf"],
    ):
        with pytest.raises(SystemExit):
            main(command)
        assert ".jsonl" in capsys.readouterr().err


def test_a_program_is_recorded_too_the_same_every_time(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    pages = [tmp_path / "one.html", tmp_path / "other.html"]
    for page in pages:
        command = ["run", str(script), "--virtual", "--quiet", "--model", "qwen3-8b"]
        assert main([*command, "--replicas", "2", "--replay", str(page)]) == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()
    watcher = watched(lines_of(pages[0]))
    assert watcher.last["totals"]["turns"] == 3
    assert watcher.state_of("mine") == "gap"


def test_a_long_run_is_a_bounded_number_of_frames_that_lose_no_session(run: Path) -> None:
    log = str(run / "events.jsonl")
    whole = watched((run / "run.jsonl").read_bytes())
    plan = deployment("qwen3-8b", num_replicas=2)
    layout = emulated_layout(plan, band=Band.BASE, policy="panjiu", source="recording")
    recorder = ViewRecorder(layout, ReckonedGauges(2, layout.kv_tokens), max_frames=16)
    seen: set[str] = set()
    for _, decision in read_decisions(numbered_lines(log), log):
        recorder.take(decision)
        if isinstance(decision.event, TurnArrived):
            seen.add(decision.event.session_id)
    watcher = Watcher()
    told: set[str] = set()
    times = []
    for message in recorder.messages():
        one: dict[str, Any] = json.loads(encoded(message))
        watcher.take(one)
        if one["kind"] == "frame":
            times.append(one["t"])
            told |= {row[0] for row in one["sessions"]} | set(one["gone"])
    assert 8 <= watcher.num_frames <= 17
    assert watcher.last["totals"] == whole.last["totals"]
    assert told == seen
    steps = [later - earlier for earlier, later in pairwise(times[1:-1])]
    assert max(steps) < 3 * min(steps)


def test_fill_is_reckoned_from_contexts_the_longest_unused_going_first() -> None:
    gauges = ReckonedGauges(2, 1000)

    def take(event: Any, *commands: Any) -> list[tuple[int, int, int]]:
        gauges.take(Decision(0.0, event, commands))
        return [(row.running, row.used_permille, row.active_permille) for row in gauges.read()]

    def arrives(turn: str, tokens: int, replica: int = 0) -> list[tuple[int, int, int]]:
        event = TurnArrived(TurnId(turn), SessionId(turn[0]), tokens, 10)
        return take(event, Dispatch(TurnId(turn), ReplicaId(replica)))

    assert arrives("a0", 400)[0] == (1, 400, 400)
    assert take(TurnEnded(TurnId("a0"), 450))[0] == (0, 450, 0)
    assert arrives("b0", 500)[0] == (1, 950, 500)
    assert arrives("c0", 300)[0] == (2, 800, 800)  # a's went
    assert take(TurnEnded(TurnId("b0"), 500))[0] == (1, 800, 300)
    pulled = take(Woken(), Pull(SessionId("b"), ReplicaId(0), ReplicaId(1), 1.0))
    assert pulled == [(1, 800, 300), (0, 500, 0)]
    assert take(Woken(), Drop(SessionId("b"), ReplicaId(0)))[0] == (1, 300, 300)
    assert take(ReplicaDown(ReplicaId(1)))[1] == (0, 0, 0)
    assert gauges.read()[1].health == 1
