"""``panjiu run``: programs as users write them, in virtual time and in real time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RACK = ("--model", "qwen3-8b", "--replicas", "2")

ASYNC_AGENTS = """
import asyncio, datetime, random, time, uuid
import openai

async def agent(client, number):
    session = str(uuid.uuid4())
    messages = [{"role": "user", "content": f"It is {datetime.datetime.now()}. " + "word " * 500}]
    for turn in range(4):
        answer = await client.chat.completions.create(
            model="gpt-5", messages=messages, extra_headers={"X-Session-ID": session}
        )
        messages += [
            {"role": "assistant", "content": answer.choices[0].message.content},
            {"role": "user", "content": f"{set('abcdefgh')} " + "result " * 100},
        ]
        if number % 2:
            await asyncio.sleep(random.uniform(1, 60))
        else:
            await asyncio.to_thread(time.sleep, random.uniform(1, 60))

async def main():
    client = openai.AsyncOpenAI()
    await asyncio.gather(*(agent(client, number) for number in range(6)))

began_s = time.monotonic()
asyncio.run(main())
print(f"{time.monotonic() - began_s:.3f} {uuid.uuid4()} {datetime.datetime.now()}")
"""

BLOCKING_AGENT = """
import sys, time
import openai

client = openai.OpenAI()
began_s = time.time()
stream = client.chat.completions.create(
    model="any", stream=True, max_tokens=20, extra_body={"ignore_eos": True},
    messages=[{"role": "user", "content": "count " + sys.argv[1]}],
)
times_s = [time.time() for chunk in stream if chunk.choices[0].delta.content]
time.sleep(3600)
again = client.chat.completions.create(
    model="any", max_tokens=5, messages=[{"role": "user", "content": "again"}]
)
print(times_s[0] - began_s > 0.01, len(set(times_s)), round(time.time() - began_s) // 60)
"""


def run(
    tmp_path: Path, source: str, *options: str, args: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "agents.py"
    script.write_text(source)
    return subprocess.run(
        [
            sys.executable, "-m", "agent_runtime.cli.main", "run", str(script),
            *RACK, *options, *(["--", *args] if args else []),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**without_hash_seed(), **environment},
        cwd=Path(__file__).parents[1],
        timeout=60,
    )  # fmt: skip


def without_hash_seed() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}


def test_the_same_seed_gives_the_same_bytes_in_every_process_and_another_seed_others(
    tmp_path: Path,
) -> None:
    logs, outputs = [], []
    for number, seed in enumerate(("1", "1", "2")):
        log = tmp_path / f"{number}.jsonl"
        options = ("--virtual", "--seed", seed, "--event-log", str(log), "--quiet")
        done = run(tmp_path, ASYNC_AGENTS, *options)
        assert done.returncode == 0, done.stderr
        logs.append(log.read_bytes())
        outputs.append(done.stdout)
    assert logs[0] == logs[1]
    assert outputs[0] == outputs[1]
    assert logs[0] != logs[2]
    lines = [json.loads(line) for line in logs[0].splitlines()]
    assert len([line for line in lines if line["event"] == "turn_arrived"]) == 24
    assert len({line["session"] for line in lines if "session" in line}) == 6


def test_the_report_says_what_the_rack_did(tmp_path: Path) -> None:
    done = run(
        tmp_path, ASYNC_AGENTS, "--virtual", "--json", "-", "--html", str(tmp_path / "r.html")
    )
    assert done.returncode == 0, done.stderr
    head, _, rest = done.stdout.partition("\n")
    summary = json.loads(rest)
    assert summary["turns"] == 24
    assert summary["sessions"] == {"total": 6, "completed": 6, "failed": 0}
    assert summary["prefix_hit_ratio"] > 0.5
    assert summary["simulated_s"] == pytest.approx(float(head.split()[0]), abs=0.01)
    assert summary["ttft_s"]["p50"] > 0.0156, "the way to the engine is counted"
    assert "6/6" in done.stderr
    assert "<svg" in (tmp_path / "r.html").read_text()


def test_all_bands_are_three_runs_of_a_fresh_program_that_prints_once(tmp_path: Path) -> None:
    (tmp_path / "counter.py").write_text("number = 0\n")
    source = f"import counter\ncounter.number += 1\nprint('run', counter.number)\n{ASYNC_AGENTS}"
    done = run(tmp_path, source, "--virtual", "--band", "all", "--json", str(tmp_path / "r.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run 1") == 1
    assert "run 2" not in done.stdout
    runs = json.loads((tmp_path / "r.json").read_text())
    assert [summary["band"] for summary in runs] == ["low", "base", "high"]
    assert [summary["turns"] for summary in runs] == [24, 24, 24]
    assert runs[0]["tpot_s"]["p50"] > runs[1]["tpot_s"]["p50"] > runs[2]["tpot_s"]["p50"]


def test_a_blocking_program_lives_in_virtual_time_too(tmp_path: Path) -> None:
    done = run(tmp_path, BLOCKING_AGENT, "--virtual", "--quiet", args=("to twenty",))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True 20 60\n"


def test_the_program_runs_in_real_time_without_a_change(tmp_path: Path) -> None:
    source = BLOCKING_AGENT.replace("3600", "0.1")
    done = run(tmp_path, source, "--speed", "50", "--json", str(tmp_path / "r.json"), args=("up",))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" 0\n")
    assert json.loads((tmp_path / "r.json").read_text())["turns"] == 2


@pytest.mark.parametrize("virtual", [True, False])
def test_the_exit_code_is_the_program_s(tmp_path: Path, virtual: bool) -> None:
    options = ("--virtual",) if virtual else ()
    done = run(tmp_path, "import sys; print(sys.argv[1:]); sys.exit(7)", *options, args=("-v", "x"))
    assert done.returncode == 7
    assert done.stdout == "['-v', 'x']\n"
    assert "no model call" in done.stderr


def test_a_program_that_a_signal_ends_has_the_shell_s_exit_code(tmp_path: Path) -> None:
    done = run(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == 128 + signal.SIGKILL


def test_a_program_s_error_is_shown_from_its_own_first_line(tmp_path: Path) -> None:
    done = run(tmp_path, "def f():\n    raise ValueError('mine')\nf()\n", "--virtual")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "agents.py" in lines[1]
    assert "ValueError: mine" in done.stderr


DEADLOCK = "import asyncio; asyncio.run(asyncio.Event().wait())"
NETWORK = "import asyncio, httpx2; asyncio.run(httpx2.AsyncClient().get('https://example.com'))"
SOCKET = "import asyncio; asyncio.run(asyncio.open_connection('localhost', 80))"
BLOCKING_REQUEST = """
import asyncio, openai
async def main():
    openai.OpenAI(max_retries=0).models.list()
asyncio.run(main())
"""
THREAD = """
import threading, openai
thread = threading.Thread(target=lambda: openai.OpenAI(max_retries=0).models.list())
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (DEADLOCK, "nothing can ever happen again"),
        (NETWORK, "no network in virtual time"),
        (SOCKET, "real sockets have no place"),
        (BLOCKING_REQUEST, "use the library's async client"),
        (THREAD, "requests from threads can't be simulated"),
    ],
    ids=["deadlock", "network", "socket", "blocking request in a loop", "thread"],
)
def test_what_can_t_be_simulated_is_an_error_that_says_so(
    tmp_path: Path, source: str, says: str
) -> None:
    assert says in run(tmp_path, source, "--virtual").stderr


def test_a_client_s_time_out_is_kept_in_virtual_time(tmp_path: Path) -> None:
    source = """
import openai, time
client = openai.OpenAI(timeout=1.5, max_retries=0)
try:
    client.chat.completions.create(
        model="any", max_tokens=2000, extra_body={"ignore_eos": True},
        messages=[{"role": "user", "content": "write a book"}],
    )
except openai.APITimeoutError:
    print(round(time.monotonic(), 3))
"""
    done = run(tmp_path, source, "--virtual")
    assert done.stdout == "1.5\n", done.stderr
    assert "client left before the end: 1" in done.stderr.replace("\n", " ")


def test_an_interrupted_run_reports_what_there_was(tmp_path: Path) -> None:
    script = tmp_path / "agents.py"
    script.write_text(
        BLOCKING_AGENT.replace("time.sleep(3600)", "print('ready', flush=True)\ntime.sleep(60)")
    )
    command = [sys.executable, "-m", "agent_runtime.cli.main", "run", str(script), *RACK, "--", "x"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert "1/1" in process.stderr.read()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--virtual", "--speed", "2"), "virtual time has no speed"),
        (("--band", "all"), "only with --virtual"),
        (("--virtual", "--band", "all", "--event-log", "x"), "choose one --band"),
        (("--event-log", "/nowhere/x"), "not a file in an existing directory"),
        (("--policy", "magic"), "magic"),
    ],
)
def test_a_wrong_command_line_is_refused_before_the_program_starts(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    done = run(tmp_path, "print('ran')", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""
