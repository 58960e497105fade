"""What is compared: each arm a command that serves a port before the instant servers."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.conversations import Conversation, turns

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers"
START_S = 60.0
VLLM_ROUTER = (
    "{peers}/vllm-router/bin/vllm-router --host 127.0.0.1 --port {port} --prometheus-port {spare} "
    "--log-level error --worker-startup-check-interval 1 "
)
PROGRAMS = (
    "--policy consistent_hash --enable-program-scheduling --program-scheduling-config-json "
    '\'{{"program_scheduling_enable_key":"auto","global_queue":%s,'
    '"token_capacity_per_dp_rank":1600000}}\' --worker-urls {urls}'
)
"""By X-Session-ID; the capacity is what the instant servers' metrics say they have."""

SMG = (
    "{peers}/smg/bin/smg launch --host 127.0.0.1 --port {port} --prometheus-port {spare} "
    "--log-level error "
)
PANJIU = "{python} -m agent_runtime.cli.main serve --host 127.0.0.1 --port {port} {engines}"
BARE = "{python} -m benchmarks.gateway.bare_relay --port {port} {engines}"
DIRECT = "direct"

COMMANDS = {
    "vllm-router:round_robin": VLLM_ROUTER + "--policy round_robin --worker-urls {urls}",
    "vllm-router:consistent_hash": VLLM_ROUTER + "--policy consistent_hash --worker-urls {urls}",
    "vllm-router:cache_aware": VLLM_ROUTER + "--policy cache_aware --worker-urls {urls}",
    "vllm-router:program": VLLM_ROUTER + PROGRAMS % "false",
    "vllm-router:program_global": VLLM_ROUTER + PROGRAMS % "true",
    "smg:round_robin": SMG + "--policy round_robin --worker-urls {urls}",
    "smg:cache_aware": SMG + "--policy cache_aware --worker-urls {urls}",
    "smg:consistent_hashing": SMG + "--policy consistent_hashing --worker-urls {urls}",
    "bare-relay": BARE,
    "panjiu": PANJIU,
}


class ArmError(Exception):
    """An arm that can't be measured; says why."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A router that runs, or nothing.

    Attributes:
        name: As in ``--arms``.
        ports: Where to send requests; a session always to the same of several.
        pid: Of the router's first process, or None.
    """

    name: str
    ports: Sequence[int]
    pid: int | None


def chosen_arms(names: str) -> list[str]:
    """Return the arms of a comma-separated list; a router's name alone means all its policies."""
    chosen: list[str] = []
    for name in names.split(","):
        fitting = [arm for arm in (DIRECT, *COMMANDS) if arm == name or arm.startswith(f"{name}:")]
        if not fitting:
            known = ", ".join((DIRECT, *COMMANDS))
            raise argparse.ArgumentTypeError(f"{name!r} is no arm; known: {known}")
        chosen += fitting
    return chosen


@contextmanager
def running_arm(name: str, command: str | None, port: int, targets: Sequence[int]) -> Iterator[Arm]:
    """Run an arm before the targets.

    Args:
        name: Which.
        command: A template of one's own, with ``{port}``, ``{engines}`` and ``{urls}``, or None.
        port: Where it shall listen; the next one is for its own metrics.
        targets: Ports of the instant servers.

    Raises:
        ArmError: It is not installed, or does not answer.
    """
    if name == DIRECT:
        yield Arm(name, targets, None)
        return
    urls = [f"http://127.0.0.1:{target}" for target in targets]
    filled = (command or COMMANDS[name]).format(
        peers=PEERS,
        python=sys.executable,
        port=port,
        spare=port + 1,
        urls=" ".join(urls),
        engines=" ".join(f"--engine {url}" for url in urls),
    )
    arguments = shlex.split(filled)
    if not Path(arguments[0]).exists():
        raise ArmError(f"{arguments[0]} is not there: 'make peers' installs the routers")
    log = Path(f"/tmp/benchmark-{os.getpid()}-{name.replace(':', '-')}.log")  # noqa: S108 - ours
    with (
        log.open("w") as output,
        subprocess.Popen(arguments, stdout=output, stderr=output, cwd=ROOT) as process,  # noqa: S603
    ):
        try:
            _wait_until_it_answers(process, port, log)
            yield Arm(name, [port], process.pid)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
    log.unlink()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    body = next(turns("first", Conversation(1_000), 1)).partition(b"\r\n\r\n")[2]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        body,
        {"Content-Type": "application/json", "X-Session-ID": "first"},
    )
    deadline_s = time.monotonic() + START_S
    problem = "no answer"
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            problem = f"it ended with code {process.returncode}"
            break
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310 - loopback
                return
        except (urllib.error.URLError, OSError) as error:
            problem = str(error)
        time.sleep(0.5)
    tail = log.read_text(errors="replace")[-600:]
    raise ArmError(f"{problem}; it said: {tail.strip() or 'nothing'}")
