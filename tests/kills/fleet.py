"""Processes that are killed and started again: engines, gateways, agent programs, Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx2

from tests.vllm.servers import ENVIRONMENT, build_model, free_ports, server_command

ROOT = Path(__file__).parents[2]
READY_S = 600.0


@dataclass
class KilledProcess:
    """One of them.

    Attributes:
        kind: What it is, for people.
        command: Starts it, by the number of its life.
        url: Where it listens; None for one that does not.
        log: What it printed, in all its lives.
        num_lives: Begun so far.
    """

    kind: str
    command: Callable[[int], Sequence[str]]
    url: str | None
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    num_lives: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin a life."""
        self.num_lives += 1
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command(self.num_lives),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    async def wait_until_ready(self) -> None:
        """Return once it answers; it is started again where it ended."""
        if self.url is None:
            return
        async with httpx2.AsyncClient() as http:
            with anyio.move_on_after(READY_S):
                while True:
                    if self.exit_code is not None:
                        await anyio.sleep(0.3)
                        self.start()
                    try:
                        if (await http.get(f"{self.url}/health", timeout=2)).is_success:
                            return
                    except httpx2.HTTPError:
                        pass
                    await anyio.sleep(0.1)
        raise AssertionError(f"{self.kind} does not start:\n{self.log.read_text()[-3000:]}")


def word_engines(num: int, folder: Path) -> list[KilledProcess]:
    """Return engines of words."""

    def command(number: int, ports: list[int]) -> Callable[[int], Sequence[str]]:
        fixed = [sys.executable, "-m", "tests.kills.word_engine", *map(str, ports)]
        return lambda life: [*fixed, str(100 * number + life)]

    return [
        _engine(number, ports[0], folder, command(number, ports)) for number, ports in _ports(num)
    ]


def look_alikes(num: int, folder: Path) -> list[KilledProcess]:
    """Return ``panjiu emulate``s of a replica each."""

    def command(ports: list[int]) -> Callable[[int], Sequence[str]]:
        fixed = [
            sys.executable, "-m", "agent_runtime.cli.main", "emulate", "--replicas", "1",
            "--model", "qwen3-8b", "--speed", "20", "--base-port", str(ports[0]),
            "--kv-events-base-port", str(ports[1]), "--kv-replay-base-port", str(ports[2]),
            "--tool-steps", "2", "--max-tool-steps", "3", "--reply-tokens", "30",
        ]  # fmt: skip
        return lambda _: fixed

    return [_engine(number, ports[0], folder, command(ports)) for number, ports in _ports(num)]


def vllm_servers(num: int, python: str, folder: Path) -> list[KilledProcess]:
    """Return real vLLM servers with a tiny random model, which is built first."""
    model = build_model(python, folder / "model")

    def command(ports: list[int]) -> Callable[[int], Sequence[str]]:
        return lambda _: server_command(python, model, ports)

    engines = [_engine(number, ports[0], folder, command(ports)) for number, ports in _ports(num)]
    for number, engine in enumerate(engines):
        # A core each: one that starts hardly gets on beside one that spins on the same.
        core = str(number % (os.cpu_count() or 1))
        engine.environment = {**ENVIRONMENT, "VLLM_CPU_OMP_THREADS_BIND": core}
    return engines


def gateways(
    num: int, engines: Sequence[KilledProcess], journal: str, folder: Path
) -> list[KilledProcess]:
    """Return gateways before engines."""
    at = [option for engine in engines for option in ("--engine", str(engine.url))]

    def command(port: int) -> Callable[[int], Sequence[str]]:
        fixed = [
            sys.executable, "-m", "agent_runtime.cli.main", "serve", "--port", str(port), *at,
            "--journal", journal, "--max-wait", "120",
        ]  # fmt: skip
        return lambda _: fixed

    return [
        KilledProcess(
            "gateway", command(port), f"http://127.0.0.1:{port}", folder / f"gateway-{n}.log"
        )
        for n, port in enumerate(free_ports(num))
    ]


def _ports(num: int) -> list[tuple[int, list[int]]]:
    ports = free_ports(3 * num)
    return [(number, ports[3 * number : 3 * number + 3]) for number in range(num)]


def _engine(
    number: int, port: int, folder: Path, command: Callable[[int], Sequence[str]]
) -> KilledProcess:
    return KilledProcess(
        "engine", command, f"http://127.0.0.1:{port}", folder / f"engine-{number}.log"
    )
