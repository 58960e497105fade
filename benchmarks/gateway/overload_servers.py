"""The gateway before look-alikes, a process each, and what the gateway tells of itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx2
from prometheus_client.parser import text_string_to_metric_families

MODEL = "qwen3-32b"
COMMAND = (sys.executable, "-m", "agent_runtime.cli.main")
URL = re.compile(r"http://[\d.]+:\d+")
WATCHED = {
    "process_resident_memory_bytes": "resident_bytes",
    "process_open_fds": "open_fds",
    "panjiu_tasks": "tasks",
    "panjiu_held_turns": "held_turns",
    "panjiu_waiting_newcomers": "waiting_newcomers",
    "panjiu_sessions": "sessions",
}


@dataclass(frozen=True, slots=True)
class Level:
    """What the gateway tells of itself at a time.

    Attributes:
        at_s: On the clock of the run.
        resident_bytes: Of memory.
        open_fds, tasks, held_turns, waiting_newcomers, sessions: Of each so many.
    """

    at_s: float
    resident_bytes: float
    open_fds: float
    tasks: float
    held_turns: float
    waiting_newcomers: float
    sessions: float


async def level(http: httpx2.AsyncClient, at_s: float) -> Level:
    """Ask for it."""
    page = (await http.get("/metrics")).text
    told = dict.fromkeys(WATCHED.values(), 0.0)
    for family in text_string_to_metric_families(page):
        if family.name in WATCHED:
            told[WATCHED[family.name]] = sum(sample.value for sample in family.samples)
    return Level(at_s, **told)


@contextmanager
def gateway_before_look_alikes(num_replicas: int, speed: float, max_wait_s: float) -> Iterator[str]:
    """Start both; yield the gateway's URL. Both are told to stop at the end."""
    with ExitStack() as stack:
        emulate = ["emulate", "--model", MODEL, "--replicas", str(num_replicas)]
        emulate += ["--speed", str(speed), "--base-port", "0", "--block-size", "16"]
        said = stack.enter_context(_process(emulate, "Ctrl-C stops"))
        serve = ["serve", "--port", "0", "--max-wait", str(max_wait_s), "--no-dashboard"]
        for url in URL.findall(said):
            serve += ["--engine", url]
        said = stack.enter_context(_process(serve, "Ctrl-C stops"))
        yield URL.findall(said)[-1]


@contextmanager
def _process(arguments: Sequence[str], ready: str) -> Iterator[str]:
    """Run a command; yield what it said until it was ready."""
    command = [*COMMAND, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        said = ""
        try:
            assert process.stderr is not None  # noqa: S101 - a pipe
            while ready not in said:
                line = process.stderr.readline()
                if not line:
                    raise ChildProcessError(f"{' '.join(arguments)} ended: {said}")
                said += line
            yield said
        finally:
            process.terminate()
            process.communicate()
