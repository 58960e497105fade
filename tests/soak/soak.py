"""One soak: a crowd, engines that die, and what the gateway takes before and after."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import numpy as np
import zmq

from agent_runtime.backends.vllm_servers.event_order import MAX_UNCONFIRMED
from agent_runtime.gateway.relay.kept_responses import MAX_DELETED
from agent_runtime.rack_view.kept_stories import MAX_LATEST_STORIES
from agent_runtime.rack_view.messages import MAX_LATEST, SERIES
from agent_runtime.rack_view.rack_picture import MAX_GONE, MAX_MOVES
from agent_runtime.rack_view.series_window import MAX_SAMPLES
from tests.soak.census import BLOCKS
from tests.soak.cheap_engine import CheapEngine
from tests.soak.crowd import Crowd, found_session
from tests.soak.soaked_gateway import Levels, SoakedGateway, soaked_gateway

NUM_ENGINES, NUM_BLOCKS = 4, 800
NUM_WORKERS, MAX_REQUESTS = 64, 48
DEAD_S = 1.5
WARM_UP_SHARE, LEAST_WARM_UP = 0.1, 10_000
"""After so many turns the windows of the dashboard are full."""
MAX_SESSIONS = 2_000
"""Three turns each; with those of the rest of the warm-up as many as the gateway remembers."""
MORE_OBJECTS = 100
MORE_RESIDENT = 1.2
"""Of the middle of the run: memory that was in use once is not given back to the last page."""
MORE_BLOCKS, A_BLOCK_ENTRY = 10_000, 4
A_STORY = 4
"""Lists, tuples and dicts that a turn's story has, at most; and blocks of the allocator."""

_ENGINES, _GATEWAY, _VIEW = (
    f"agent_runtime.{package}." for package in ("backends.vllm_servers", "gateway", "rack_view")
)
WINDOWS = {
    f"{_ENGINES}event_order.EventOrder._unconfirmed[]": NUM_ENGINES * MAX_UNCONFIRMED,
    f"{_GATEWAY}relay.kept_responses.KeptResponses._deleted[]": MAX_DELETED,
    "agent_runtime.measurement.turn_stories.TurnStory": MAX_LATEST_STORIES + MAX_LATEST,
    "urllib.parse.SplitResult": 256,  # the library's own cache
    f"{_VIEW}kept_stories.LatestStories._stories[]": MAX_LATEST_STORIES,
    f"{_VIEW}rack_picture.RackPicture._gone[]": MAX_GONE,
    f"{_VIEW}rack_picture.RackPicture._moves[]": MAX_MOVES,
    f"{_VIEW}series_window.SeriesWindow._samples[]": len(SERIES) * MAX_SAMPLES,
}
"""What grows up to here, and no further."""


@dataclass(frozen=True)
class SoakPlan:
    """What is done.

    Attributes:
        num_turns: Asked for in all.
        seed: Of what the crowd does.
        death_every_turns: An engine dies so often.
    """

    num_turns: int
    seed: int = 0
    death_every_turns: int = 2_000

    @property
    def num_to_warm_up(self) -> int:
        """Turns after which what is there is compared with."""
        least = min(LEAST_WARM_UP, self.num_turns // 2)
        return max(int(self.num_turns * WARM_UP_SHARE), least)


@dataclass
class Soaked:
    """What came of it.

    Attributes:
        counts: What the crowd did and got.
        problems: Promises that were broken.
        before, after: What the gateway took after the first tenth, and at the end.
        resident: Bytes of memory that the gateway had, and after how many turns.
        said: By the gateway.
        exit_code: Of the gateway, told to stop.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    before: Levels | None = None
    after: Levels | None = None
    resident: list[tuple[int, int]] = field(default_factory=list)
    said: str = ""
    exit_code: int | None = None

    def leaks(self) -> list[str]:
        """Return what is more than it was, and should not be."""
        before, after = self.before, self.after
        assert before is not None
        assert after is not None
        found = [
            f"{name}: {was:g} -> {after.gauges[name]:g}"
            for name, was in before.gauges.items()
            if after.gauges[name] > was
        ]
        in_windows = sum(after.alive.get(n, 0) - before.alive.get(n, 0) for n in WINDOWS)
        for name, now in sorted(after.alive.items()):
            most = before.alive.get(name, 0) + MORE_OBJECTS
            if name.startswith("builtins."):
                most += A_STORY * max(0, in_windows)
            elif name == BLOCKS:
                most += MORE_BLOCKS + A_BLOCK_ENTRY * max(0, in_windows)
            if now > max(most, WINDOWS.get(name, 0)):
                found.append(f"{name}: {before.alive.get(name, 0):,} -> {now:,}")
        tenths = self.resident_by_tenths()
        # Live sessions make it rise and fall by a third: three tenths are looked at together.
        if len(tenths) > 6 and sum(tenths[-3:]) > MORE_RESIDENT * sum(tenths[-6:-3]):
            found.append(f"resident memory: {tenths}")
        return found

    def resident_by_tenths(self) -> list[int]:
        """Return the most MiB that the gateway had in each tenth of the run, at work."""
        most: dict[int, int] = {}
        last = max((turns for turns, _ in self.resident), default=0) + 1
        for turns, num_bytes in self.resident:
            tenth = 10 * turns // last
            most[tenth] = max(most.get(tenth, 0), round(num_bytes / (1 << 20)))
        return [most[tenth] for tenth in sorted(most)]


async def soak(plan: SoakPlan, progress: Callable[[int], None]) -> Soaked:
    """Run one; ``progress`` is told of turns."""
    soaked = Soaked()
    directory = Path(tempfile.mkdtemp(prefix="panjiu-soak-"))
    log = directory / "log"
    try:
        async with _engines() as engines:
            ports = [engine.port for engine in engines]
            options = ("--max-requests", str(MAX_REQUESTS), "--max-wait", "2")
            async with soaked_gateway(ports, directory / "census", log, options) as gateway:
                crowd = Crowd(gateway.port, np.random.default_rng(plan.seed))
                soaked.counts, soaked.problems = crowd.counts, crowd.problems

                def went_on(num_turns: int, gateway: SoakedGateway = gateway) -> None:
                    soaked.resident.append((num_turns, gateway.resident_bytes()))
                    progress(num_turns)

                rounds = _Rounds(plan, crowd, engines, went_on)
                await rounds.fill(min(MAX_SESSIONS, plan.num_to_warm_up // 2))
                await rounds.play_until(plan.num_to_warm_up)
                soaked.before = await gateway.settled()
                await rounds.play_until(plan.num_turns)
                soaked.after = await gateway.settled()
            soaked.exit_code = gateway.process.returncode
            soaked.counts["deaths of engines"] = sum(engine.num_deaths for engine in engines)
        soaked.said = log.read_text()
    finally:
        shutil.rmtree(directory)
    return soaked


@dataclass
class _Rounds:
    plan: SoakPlan
    crowd: Crowd
    engines: list[CheapEngine]
    progress: Callable[[int], None]

    async def fill(self, num_sessions: int) -> None:
        """Have so many sessions that nobody closes: memory is then what it comes to."""
        await self.crowd.play_until(3 * num_sessions, NUM_WORKERS, [(found_session, 1.0)])

    async def play_until(self, num_turns: int) -> None:
        """Have the crowd play while engines die; all of them live at the end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            await self.crowd.play_until(num_turns, NUM_WORKERS)
            tasks.cancel_scope.cancel()
        for engine in self.engines:  # nothing is left of what they had
            await engine.until_it_lives()
            engine.die()
        for engine in self.engines:
            await engine.until_it_lives()

    async def _watch(self) -> None:
        next_death = self.crowd.counts["turns"] + self.plan.death_every_turns
        while True:
            await anyio.sleep(0.25)
            num_turns = self.crowd.counts["turns"]
            self.progress(num_turns)
            if num_turns >= next_death:
                next_death += self.plan.death_every_turns
                self.engines[int(self.crowd.rng.integers(len(self.engines)))].die()


@asynccontextmanager
async def _engines() -> AsyncIterator[list[CheapEngine]]:
    async with AsyncExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.destroy, linger=0)
        engines = [CheapEngine(number, NUM_BLOCKS, context) for number in range(NUM_ENGINES)]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        for engine in engines:
            tasks.start_soon(engine.run, DEAD_S)
        for engine in engines:
            await engine.until_it_lives()
        yield engines
