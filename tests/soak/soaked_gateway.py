"""The gateway's process, as it is seen from outside and by its own census."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process
from prometheus_client.parser import text_string_to_metric_families

from tests.soak.http_wire import ClientConnection

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
GAUGES = (
    "panjiu_tasks", "panjiu_sessions", "panjiu_resident_sessions", "panjiu_held_turns",
    "panjiu_waiting_newcomers", "panjiu_engine_turns", "process_open_fds",
)  # fmt: skip
"""What must be where it was."""
SETTLED_FOR = 12
"""Looks; connections are kept for 5 s."""
SETTLE_S, LOOK_EVERY_S = 60.0, 0.5


@dataclass(frozen=True)
class Levels:
    """What a gateway that nobody asks for anything takes.

    Attributes:
        gauges: ``GAUGES``, summed over labels, and the number of threads.
        resident_bytes: Of memory.
        alive: Its census.
    """

    gauges: dict[str, float]
    resident_bytes: float
    alive: dict[str, int]


@dataclass
class SoakedGateway:
    """A gateway under test."""

    process: Process
    port: int
    _census: Path

    async def metrics(self) -> dict[str, float]:
        """Return all of its metrics, each summed over its labels."""
        connection = await ClientConnection.connect(self.port)
        page = (await connection.ask("GET", "/metrics")).body.decode()
        await connection.close()
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def resident_bytes(self) -> int:
        """Return how much memory it has."""
        statm = (Path("/proc") / str(self.process.pid) / "statm").read_text()
        return int(statm.split()[1]) * PAGE_BYTES

    async def close_all_sessions(self) -> None:
        """Close what clients have left open."""
        connection = await ClientConnection.connect(self.port)
        while data := json.loads((await connection.ask("GET", "/v1/sessions?limit=100")).body)[
            "data"
        ]:
            for session in data:
                await connection.ask("DELETE", f"/v1/sessions/{session['id']}")
        await connection.close()

    async def settled(self) -> Levels:
        """Close all sessions, wait until nothing changes any more, and count.

        The engines have lost their KV just before.
        """
        await self.close_all_sessions()
        before: dict[str, float] = {}
        num_same = 0
        with anyio.move_on_after(SETTLE_S):
            while num_same < SETTLED_FOR:
                await anyio.sleep(LOOK_EVERY_S)
                now = await self._gauges()
                is_same = now == before and not now["panjiu_resident_sessions"]
                num_same = num_same + 1 if is_same else 0
                before = now
        alive = await self._counted()
        return Levels(before, (await self.metrics())["process_resident_memory_bytes"], alive)

    async def _gauges(self) -> dict[str, float]:
        metrics = await self.metrics()
        status = (Path("/proc") / str(self.process.pid) / "status").read_text()
        threads = re.search(r"Threads:\s+(\d+)", status)
        assert threads is not None
        return {name: metrics[name] for name in GAUGES} | {"threads": float(threads[1])}

    async def _counted(self) -> dict[str, int]:
        self._census.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        with anyio.fail_after(60):
            while not self._census.exists():
                await anyio.sleep(0.05)
        counted: dict[str, int] = json.loads(self._census.read_text())
        return counted


@asynccontextmanager
async def soaked_gateway(
    engine_ports: Sequence[int], census: Path, log: Path, options: Sequence[str]
) -> AsyncIterator[SoakedGateway]:
    """Run the gateway before engines; it is told to stop at the end, and must."""
    command = [sys.executable, "-m", "tests.soak.gateway_process", str(census), "serve"]
    command += ["--port", "0", *options]
    for port in engine_ports:
        command += ["--engine", f"http://127.0.0.1:{port}"]
    with log.open("wb") as said:
        async with await anyio.open_process(
            command, stdin=None, stdout=None, stderr=said, start_new_session=True
        ) as process:
            try:
                yield SoakedGateway(process, await _port(process, log), census)
                process.send_signal(signal.SIGTERM)
                with anyio.fail_after(60):
                    await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()


async def _port(process: Process, log: Path) -> int:
    said = ""
    with anyio.fail_after(60):
        while process.returncode is None:
            said = await anyio.Path(log).read_text()
            found = re.search(r"listening on http://[\d.]+:(\d+)", said)
            if found is not None:
                return int(found[1])
            await anyio.sleep(0.05)
    raise ChildProcessError(f"the gateway ended with {process.returncode}: {said}")
