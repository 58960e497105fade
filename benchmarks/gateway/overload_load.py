"""Agents that begin at a rate whatever becomes of them, and what they see."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import numpy as np

from benchmarks.gateway.overload_servers import Level, level

PROMPT_WORDS, NUM_TURNS, OUTPUT_TOKENS = 2_250, 3, 60
GAP_S = 0.2
OK, REFUSED = 200, 429
LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Phase:
    """So many sessions begin a second, for so long.

    Attributes:
        name: For the table.
        sessions_per_s: That begin.
        seconds: It takes.
    """

    name: str
    sessions_per_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        at_s: When, on the clock of the run.
        turn: Of its session, from 0.
        attempt: Of this turn, from 0; later ones come when they were told to.
        status: Of the answer; 0 if there was none.
        took_s: To its first token, or to the refusal.
        retry_after_s: What a refusal told.
    """

    at_s: float
    turn: int
    attempt: int
    status: int
    took_s: float
    retry_after_s: float = 0.0


@dataclass
class Seen:
    """What agents saw, and what the gateway told meanwhile.

    Attributes:
        begun_s: When each session began.
        asked: Every request that has been answered.
        levels: Of the gateway, every half second.
        phase_began_s: By the phases' names.
        num_ended: Sessions with all turns answered.
        problems: Answers that should not be, the first few.
    """

    begun_s: list[float] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    phase_began_s: dict[str, float] = field(default_factory=dict)
    ended_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Load:
    """Agents before one gateway.

    Args:
        http: To the gateway, without time limits.
        rng: Of when they begin, and who comes back.
        come_back: The share of refused sessions that come back when they are told to.
        seen: Is told everything.
    """

    def __init__(
        self, http: httpx2.AsyncClient, rng: np.random.Generator, come_back: float, seen: Seen
    ) -> None:
        self._http, self._rng, self._come_back = http, rng, come_back
        self._zero_s = time.perf_counter()
        self._num_begun = 0
        self.seen = seen

    def now_s(self) -> float:
        """Return the clock of the run."""
        return time.perf_counter() - self._zero_s

    async def watch(self) -> None:
        """Look at the gateway until cancelled."""
        while True:
            self.seen.levels.append(await level(self._http, self.now_s()))
            await anyio.sleep(LOOK_EVERY_S)

    async def capacity_per_s(self, num_at_once: int, seconds: float) -> float:
        """Return how many sessions a second end where so many are always under way.

        The first half of the time is not counted.
        """
        begun_s = self.now_s()
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as tasks:
                for _ in range(num_at_once):
                    tasks.start_soon(self._one_after_the_other)
        ended = [at_s for at_s in self.seen.ended_s if at_s > begun_s + seconds / 2]
        if not ended:
            raise SystemExit("no session ended: give it longer (--measure-s), or more --speed")
        return len(ended) / (seconds / 2)

    async def play(self, phases: list[Phase], progress: Callable[[Phase, float], None]) -> None:
        """Have sessions begin phase after phase; return when the last phase is over.

        What is under way then is left to itself, and its clients leave.
        """
        async with anyio.create_task_group() as sessions:
            until_s = self.now_s()
            for phase in phases:
                self.seen.phase_began_s[phase.name] = until_s
                until_s += phase.seconds
                while (left_s := until_s - self.now_s()) > 0:
                    progress(phase, phase.seconds - left_s)
                    self.seen.begun_s.append(self.now_s())
                    sessions.start_soon(self._session)
                    wait_s = float(self._rng.exponential(1.0 / phase.sessions_per_s))
                    await anyio.sleep(min(wait_s, max(0.0, until_s - self.now_s())))
            sessions.cancel_scope.cancel()

    async def _one_after_the_other(self) -> None:
        while True:
            await self._session()

    async def _session(self) -> None:
        self._num_begun += 1
        name = f"s{self._num_begun}"
        words = " ".join(f"w{self._num_begun}x{index}" for index in range(PROMPT_WORDS))
        messages = [{"role": "user", "content": words}]
        for turn in range(NUM_TURNS):
            attempt = 0
            while (asked := await self._ask(name, messages, turn, attempt)).status == REFUSED:
                if attempt == 0 and self._rng.random() >= self._come_back:
                    return
                attempt += 1
                await anyio.sleep(asked.retry_after_s)
            if asked.status != OK:
                return
            messages = [
                *messages,
                {"role": "assistant", "content": "done"},
                {"role": "user", "content": "go on"},
            ]
            await anyio.sleep(GAP_S)
        self.seen.ended_s.append(self.now_s())

    async def _ask(
        self, name: str, messages: list[dict[str, str]], turn: int, attempt: int
    ) -> Asked:
        body: dict[str, Any] = {
            "messages": messages,
            "max_tokens": OUTPUT_TOKENS,
            "ignore_eos": True,
            "stream": True,
            "session_id": name,
        }
        at_s = self.now_s()
        status, took_s, retry_after_s = 0, 0.0, 0.0
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body) as answer:
                status = answer.status_code
                if status != OK:
                    took_s = self.now_s() - at_s
                    retry_after_s = float(answer.headers.get("retry-after", "0"))
                text = ""
                async for piece in answer.aiter_text():
                    if not took_s and '"content"' in piece:
                        took_s = self.now_s() - at_s
                    text = (text + piece)[-500:]
        except httpx2.TransportError as error:
            text = repr(error)
            status = 0
        if (status != OK or "[DONE]" not in text) and status != REFUSED:
            self.seen.problems.append(f"turn {turn} of {name}: {status} {text}")
        if status == REFUSED and turn:
            self.seen.problems.append(f"turn {turn} of {name}, under way, was turned away: {text}")
        asked = Asked(at_s, turn, attempt, status, took_s, retry_after_s)
        self.seen.asked.append(asked)
        return asked
