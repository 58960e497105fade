"""Measures an engine: the designed load, round after round, for as long as there is time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median_low

import anyio
import numpy as np

from agent_runtime.chat_client import ChatClient
from agent_runtime.engine_measurement.filler_text import FillerText, num_words
from agent_runtime.engine_measurement.probes import (
    BATCH_TOKENS,
    BESIDE,
    BESIDE_CONTEXT_TOKENS,
    BESIDE_TOKENS,
    SOLO_TOKENS,
    Asker,
    BatchProbe,
    MixedProbe,
    Probe,
    SoloProbe,
    ladder,
)
from agent_runtime.engine_measurement.timed_reply import timed_reply
from agent_runtime.errors import BackendError, ConfigError, UpstreamRefusedError
from hw_model.engine_observations import Observation

LEAST_LONGEST_TOKENS = 256
BATCH_SIZES = (2, 4, 8, 16)
SHORT_BATCH_TOKENS = 256
LONG_BATCH, LONG_BATCH_TOKENS = 6, 2048
WARM_UP_TOKENS = (32, 512)
BUDGET_LOOKS = 3
TOO_LONG = (400, 413, 422)
"""How servers refuse a long prompt."""


@dataclass(frozen=True, slots=True)
class LoadDesign:
    """What is measured.

    Attributes:
        longest_tokens: The longest prompt.
        kv_tokens: What the engine's KV holds; None where it isn't known.
        budget_tokens: New tokens in a step of the engine; None to find out.
        assumed_budget_tokens: What it is taken to be if it's more than can be found out.
        max_rounds: Every probe is sent so often, or until the time is over.
        seed: Of the prompts, which the engine must not have seen before, and of the order of the
            probes.
    """

    longest_tokens: int
    kv_tokens: int | None
    budget_tokens: int | None
    assumed_budget_tokens: int
    max_rounds: int
    seed: int = 0

    def probes(self) -> list[Probe]:
        """Return the probes of one round.

        Raises:
            ConfigError: No room for useful ones.
        """
        if self.longest_tokens < LEAST_LONGEST_TOKENS:
            raise ConfigError(
                f"prompts of {self.longest_tokens} tokens are too short to measure with: the "
                f"engine's context must hold {LEAST_LONGEST_TOKENS + SOLO_TOKENS} tokens or more"
            )
        solo: list[Probe] = [SoloProbe(num_tokens) for num_tokens in ladder(self.longest_tokens)]
        short = min(SHORT_BATCH_TOKENS, self.longest_tokens // 2)
        long = min(LONG_BATCH_TOKENS, self.longest_tokens // 2)
        batches: list[Probe] = [
            BatchProbe(num, context)
            for num, context in (*((size, short) for size in BATCH_SIZES), (LONG_BATCH, long))
            if self._holds(num * (context + BATCH_TOKENS + 2 * num))
        ]
        return [*solo, *batches, self.mixed()]

    def mixed(self) -> MixedProbe:
        """Return the prompts beside those that decode."""
        beside = min(BESIDE_TOKENS, self.longest_tokens - BESIDE_CONTEXT_TOKENS)
        taken = BESIDE * (BESIDE_CONTEXT_TOKENS + beside)
        longest = self.longest_tokens
        if self.kv_tokens is not None:
            longest = min(longest, max(SHORT_BATCH_TOKENS, self.kv_tokens - taken))
        rungs = [16, 64, 256, 1024, 2048, longest // 2]
        lengths = sorted({rung for rung in rungs if rung <= longest // 2})
        return MixedProbe(tuple(lengths), max(64, beside))

    def _holds(self, num_tokens: int) -> bool:
        return self.kv_tokens is None or num_tokens <= 0.8 * self.kv_tokens


class EngineMeasurement:
    """A measurement under way; what was seen so far is there whenever it is stopped.

    Args:
        client: Of the engine; entered, and asking for the model that is meant.
        design: What to measure.
        on_probe: Told before every probe: its title, and how many were done.

    Attributes:
        observations: What was seen so far.
        budget_tokens: New tokens in a step of the engine, once it is known.
        is_budget_found: Whether the engine showed it.
        refused_tokens: The shortest prompt that the engine refused, or None.
    """

    def __init__(
        self,
        client: ChatClient,
        design: LoadDesign,
        on_probe: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self._client = client
        self._design = design
        self._on_probe = on_probe
        self._num_done = 0
        self._text = FillerText(design.seed)
        self.observations: list[Observation] = []
        self.budget_tokens = design.budget_tokens or design.assumed_budget_tokens
        self.is_budget_found = design.budget_tokens is not None
        self.refused_tokens: int | None = None

    async def run(self, until_s: float) -> None:
        """Measure until all rounds are done or the time is over, which ends even the first round.

        Args:
            until_s: On anyio's clock.

        Raises:
            UpstreamRefusedError: The engine refuses what any engine should take.
            BackendError: It can't be reached, breaks off, or is too slow for the time there is.
        """
        with anyio.CancelScope(deadline=until_s):
            probes = self._design.probes()
            await self._warm_up()
            order = np.random.default_rng(self._design.seed)
            for number in range(self._design.max_rounds):
                indices = range(len(probes)) if number == 0 else order.permutation(len(probes))
                for index in indices:
                    await self._send(probes[index])
        if not self.observations:
            raise BackendError(
                "the engine answered too slowly to measure anything in the time given: allow "
                "more with --minutes"
            )

    async def _warm_up(self) -> None:
        """Let the engine compile what it must, see how it tokenises and how it cuts prompts."""
        counts = []
        for num_tokens in WARM_UP_TOKENS:
            self._on_probe("warming up", 0)
            messages = self._text.messages(num_tokens)
            reply = await timed_reply(self._client, messages, SOLO_TOKENS)
            counts.append((num_words(messages), reply.num_prompt_tokens))
        self._text.learn(*counts)
        if self._design.budget_tokens is None:
            self._on_probe("finding how prompts are cut", 0)
            mixed = self._design.mixed()
            looks = [await mixed.find_budget(self._asker()) for _ in range(BUDGET_LOOKS)]
            found = [look for look in looks if look is not None]
            if 2 * len(found) > BUDGET_LOOKS:
                self.is_budget_found = True
                self.budget_tokens = median_low(found)

    def _asker(self) -> Asker:
        return Asker(self._client, self._text, self.budget_tokens)

    async def _send(self, probe: Probe) -> None:
        self._on_probe(probe.title, self._num_done)
        self._num_done += 1
        length = probe.num_tokens if isinstance(probe, SoloProbe) else 0
        if self.refused_tokens is not None and length >= self.refused_tokens:
            return
        try:
            self.observations += await probe.observe(self._asker())
        except UpstreamRefusedError as refused:
            if refused.status not in TOO_LONG or length <= LEAST_LONGEST_TOKENS:
                raise
            self.refused_tokens = length
