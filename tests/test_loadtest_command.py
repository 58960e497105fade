"""``panjiu loadtest`` as users start it."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent_runtime.cli.duration import natural_duration
from agent_runtime.cli.main import main
from tests.served_command import ROOT, ServedCommand, served_command

MODEL = "qwen3-8b"


@pytest.fixture(scope="module")
def served() -> Iterator[ServedCommand]:
    with served_command("--model", MODEL, "--replicas", "2", "--speed", "20") as one:
        yield one


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "agent_runtime.cli.main", "loadtest", *options]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options), cwd=ROOT, text=True, capture_output=True, check=False, timeout=120
    )


def trace_of(path: Path, num_sessions: int, lengths: Sequence[tuple[int, int]]) -> Path:
    """Write recorded sessions of calls of these prompt and output tokens."""
    lines = []
    for number in range(num_sessions):
        first = 1000 * number
        calls = [
            {"type": "n", "t": 0, "in": isl, "out": osl, "think_time": 0.05,
             "hash_runs": [[first, first + isl // 16 - 1]]}
            for isl, osl in lengths
        ]  # fmt: skip
        lines.append(json.dumps({"id": f"r{number}", "block_size": 16, "requests": calls}))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_recorded_sessions_run_once_and_leave_all_outputs(
    served: ServedCommand, tmp_path: Path
) -> None:
    trace = trace_of(tmp_path / "trace.jsonl", 6, [(400, 20), (600, 30), (800, 10)])
    done = run(
        "--url", f"{served.url}/v1", "--workload", str(trace), "--sessions", "3",
        "--slo-ttft", "30", "--json", "-", "--csv", str(tmp_path / "turns.csv"),
        "--html", str(tmp_path / "page.html"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["format"] == "panjiu-loadtest/1"
    assert told["inputs"]["model"] == MODEL
    assert told["turns"] == {"due": 18, "answered": 18, "failed": 0, "unfinished": 0}
    assert told["sessions"]["completed"] == 6
    assert told["tokens"]["prompt"] == told["tokens"]["prompt_wanted"] == 6 * 1800
    assert told["tokens"]["output"] == told["tokens"]["output_wanted"] == 6 * 60
    assert told["tokens"]["cached_ratio"] > 0.4
    assert told["goodput"]["turn_ratio"] == 1
    assert told["errors"] == []
    assert "TTFT" in done.stderr
    with (tmp_path / "turns.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert {row["error"] for row in rows} == {""}
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "http-equiv" in page
    assert "Time to first token" in page


def test_two_runs_are_compared(served: ServedCommand, tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace.jsonl", 4, [(400, 20), (600, 20)])
    for name, sessions in (("a", "1"), ("b", "4")):
        done = run(
            "--url", served.url, "--workload", str(trace), "--sessions", sessions,
            "--json", str(tmp_path / f"{name}.json"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = run(
        "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json", "-",
        "--html", str(tmp_path / "page.html"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["differences"] == ["sessions: 1 and 4"]
    ratios = {one["name"]: one for one in told["ratios"]}
    assert ratios["TTFT mean"]["low"] <= ratios["TTFT mean"]["ratio"] <= ratios["TTFT mean"]["high"]
    assert "TTFT p99" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_gives_the_report_so_far(
    number: signal.Signals, served: ServedCommand, tmp_path: Path
) -> None:
    target = tmp_path / "told.json"
    options = (
        "--url", served.url, "--workload", "coding-agent", "--limit", "4", "--sessions", "2",
        "--gap-scale", "0.05", "--duration", "10m", "--json", str(target),
    )  # fmt: skip
    before = counted(served)
    with subprocess.Popen(
        command(*options),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - the tests have no threads
    ) as process:
        try:
            while counted(served) < before + 8:
                assert process.poll() is None
            process.send_signal(number)
            _, printed = process.communicate(timeout=60)
        finally:
            process.kill()  # or leaving the context would wait for ever
    assert process.returncode == 130, printed
    told = json.loads(target.read_text())
    assert told["interrupted"]
    assert told["turns"]["answered"] >= 1
    assert "what was seen so far" in printed


def heed_interrupts() -> None:
    """Undo what a shell does to jobs in its background, which the tests may be one of."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def counted(served: ServedCommand) -> int:
    """Return how many turns the server has answered."""
    text = httpx2.get(f"{served.url}/metrics").text
    found = re.findall(
        r'^panjiu_turns_total\{[^}]*outcome="answered"[^}]*\} (\S+)$', text, re.MULTILINE
    )
    return int(sum(float(value) for value in found))


def failed(capsys: Any, *options: str) -> tuple[int, str]:
    try:
        code = main(["loadtest", *options])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--url: say which server"),
        (("--url", "ftp://x"), "--url ftp://x: expected an address"),
        (("--url", "http://x:y"), "--url http://x:y: expected an address"),
        (("--url", "http://x", "--arrival", "soon"), "--arrival soon: expected closed"),
        (("--url", "http://x", "--arrival", "trace"), "does not say when its sessions came"),
        (("--url", "http://x", "--duration", "0"), "longer than 0"),
        (("--url", "http://x", "--duration", "5 minutes"), "such as 90s, 5m"),
        (("--url", "http://x", "--ramp", "5s"), "--ramp: without --duration"),
        (("--url", "http://x", "--workload", "nothing"), "no generator of that name"),
        (("--url", "http://x", "--header", "x"), "expected NAME:VALUE"),
        (("--url", "http://x", "--header", "Host: y"), "the client's own"),
        (("--url", "http://x", "--extra-body", "[1]"), "expected a JSON object"),
        (("--url", "http://x", "--extra-body", '{"model": "m"}'), "the load test's own"),
        (("--url", "http://x", "--html", "/no/such/folder/x"), "not a file in an existing"),
        (("compare", "/no/such", "/files"), "can't read it"),
        (("compare", str(ROOT / "mkdocs.yml"), "x"), "not what 'panjiu loadtest --json' writes"),
    ],
)
def test_a_wrong_command_line_is_told(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = failed(capsys, *options)
    assert code in {1, 2}
    assert said in " ".join(printed.split())


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = failed(capsys, "--url", "http://127.0.0.1:9", "--model", "m")
    assert code == 1
    assert "the first request failed" in printed


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert natural_duration(text) == pytest.approx(seconds)
