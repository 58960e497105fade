"""The requests of the designed load, and what their times say."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, Protocol

import anyio

from agent_runtime.chat_client import ChatClient
from agent_runtime.engine_measurement.filler_text import FillerText
from agent_runtime.engine_measurement.timed_reply import TimedReply, timed_reply
from hw_model.engine_observations import (
    NOTHING,
    Observation,
    ProbeKind,
    budget_of,
    decode_step,
    prompt_steps,
)
from hw_model.step_time import StepShape

SHORTEST_TOKENS = 16
"""About the shortest prompt."""

SOLO_TOKENS = 24
"""A reply's, where it decodes alone."""

BATCH_TOKENS = 24
"""That all sequences of a batch decode together, at least."""

BESIDE = 3
BESIDE_CONTEXT_TOKENS = 256
BESIDE_TOKENS = 2048
"""Sequences that decode beside prompts, their contexts, and the most they generate."""

FIRST_TOKENS = 4
"""They have settled after."""

LEAVING_S = 0.1
"""In which an engine notices that a client has gone, its steps aside."""

LONG_GAP = 2.5
CHUNK_SHARE = 0.3
"""Times the usual gap, and of the longest: a step that computed a chunk of a prompt as well."""


@dataclass(frozen=True, slots=True)
class Asker:
    """What probes are sent with.

    Attributes:
        client: Of the engine.
        text: Makes their prompts.
        budget_tokens: New tokens in a step of the engine.
    """

    client: ChatClient
    text: FillerText
    budget_tokens: int


class Probe(Protocol):
    """A few requests that are sent together."""

    @property
    def title(self) -> str:
        """What it is, for who waits."""
        ...

    async def observe(self, asker: Asker) -> list[Observation]:
        """Send them; return what was seen.

        Raises:
            UpstreamRefusedError: The engine refused one.
            BackendError: It failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class SoloProbe:
    """A new prompt alone, and the same again.

    Attributes:
        num_tokens: About so long.
    """

    num_tokens: int

    @property
    def title(self) -> str:
        """What it is, for who waits."""
        return f"a prompt of {self.num_tokens:,} tokens, twice"

    async def observe(self, asker: Asker) -> list[Observation]:
        """See its TTFT, computed and cached, and how fast it decodes."""
        messages = asker.text.messages(self.num_tokens)
        seen = []
        for kind in (ProbeKind.PROMPT, ProbeKind.HIT):
            reply = await timed_reply(asker.client, messages, SOLO_TOKENS)
            cached = reply.num_cached_tokens
            if kind is ProbeKind.PROMPT or cached is not None:
                seen.append(self._first_token(kind, reply, cached or 0, asker.budget_tokens))
            middle = reply.num_prompt_tokens + SOLO_TOKENS // 2
            seen.append(
                Observation(
                    ProbeKind.DECODE,
                    self._label,
                    (decode_step([middle]),) * (SOLO_TOKENS - 1),
                    None,
                    reply.tpot_s * (SOLO_TOKENS - 1),
                )
            )
        return seen

    @property
    def _label(self) -> str:
        return f"{self.num_tokens:,}"

    def _first_token(
        self, kind: ProbeKind, reply: TimedReply, num_cached: int, budget: int
    ) -> Observation:
        steps = prompt_steps(reply.num_prompt_tokens, num_cached, budget, NOTHING)
        return Observation(kind, self._label, steps, reply.num_prompt_tokens, reply.ttft_s)


@dataclass(slots=True)
class BatchProbe:
    """Sequences that decode together; only the first time are their prompts computed.

    Attributes:
        num_sequences: How many.
        context_tokens: About so long each.
    """

    num_sequences: int
    context_tokens: int
    _prompts: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What it is, for who waits."""
        return f"{self.num_sequences} decoding at {self.context_tokens:,} tokens"

    async def observe(self, asker: Asker) -> list[Observation]:
        """See the step in which all of them get a token."""
        if not self._prompts:
            self._prompts = [
                asker.text.messages(self.context_tokens) for _ in range(self.num_sequences)
            ]
            for messages in self._prompts:
                await timed_reply(asker.client, messages, 1)
        replies: list[TimedReply] = []
        num_tokens = BATCH_TOKENS + 2 * self.num_sequences

        async def ask(messages: list[dict[str, Any]]) -> None:
            replies.append(await timed_reply(asker.client, messages, num_tokens))

        async with anyio.create_task_group() as tasks:
            for messages in self._prompts:
                tasks.start_soon(ask, messages)
        return self._seen_together(replies)

    def _seen_together(self, replies: Sequence[TimedReply]) -> list[Observation]:
        """Look at the latest of them while all are there."""
        latest = max(replies, key=lambda reply: reply.token_times_s[0])
        until_s = min(reply.token_times_s[-1] for reply in replies)
        window = [at_s for at_s in latest.token_times_s if at_s <= until_s][1:]
        if len(window) <= FIRST_TOKENS:
            return []  # they hardly met
        num_steps = len(window) - 1
        middle_s = window[num_steps // 2]
        contexts = [
            reply.num_prompt_tokens + bisect_right(reply.token_times_s, middle_s)
            for reply in replies
        ]
        return [
            Observation(
                ProbeKind.BATCH,
                f"{self.num_sequences} x {self.context_tokens:,}",
                (decode_step(contexts),) * num_steps,
                None,
                window[-1] - window[0],
            )
        ]


@dataclass(slots=True)
class MixedProbe:
    """New prompts, one after the other, beside a few sequences that decode all the while.

    Attributes:
        prompts_tokens: About so long.
        beside_tokens: What those that decode generate at most.
    """

    prompts_tokens: tuple[int, ...]
    beside_tokens: int = BESIDE_TOKENS
    _beside: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What it is, for who waits."""
        return f"prompts of up to {max(self.prompts_tokens):,} tokens beside {BESIDE} that decode"

    async def observe(self, asker: Asker) -> list[Observation]:
        """See how much longer the steps of the others are."""
        seen: list[Observation] = []

        async def ask_all(decoders: _Decoders) -> None:
            for num_tokens in self.prompts_tokens:
                reply = await timed_reply(asker.client, asker.text.messages(num_tokens), 1)
                await decoders.settle()
                seen.extend(_beside_decoders(num_tokens, reply, decoders, asker.budget_tokens))

        await self._with_decoders(asker, ask_all)
        return seen

    async def find_budget(self, asker: Asker) -> int | None:
        """Return a step's token budget, from how the longest prompt is cut; None if it isn't."""
        found: int | None = None

        async def ask(decoders: _Decoders) -> None:
            nonlocal found
            messages = asker.text.messages(max(self.prompts_tokens))
            reply = await timed_reply(asker.client, messages, 1)
            await decoders.settle()
            usual_s = median(decoders.gaps(0.0, reply.sent_s))
            gaps = decoders.gaps(reply.sent_s, reply.token_times_s[0] + usual_s / 2)
            long_s = max(LONG_GAP * usual_s, CHUNK_SHARE * max(gaps, default=0.0))
            num_steps = sum(gap > long_s for gap in gaps)
            num_new = reply.num_prompt_tokens - (reply.num_cached_tokens or 0)
            found = budget_of(num_new, BESIDE, num_steps)

        await self._with_decoders(asker, ask)
        return found

    async def _with_decoders(self, asker: Asker, use: Callable[[_Decoders], Any]) -> None:
        if not self._beside:
            self._beside = [asker.text.messages(BESIDE_CONTEXT_TOKENS) for _ in range(BESIDE)]
        decoders = _Decoders(asker.client, self.beside_tokens)
        async with anyio.create_task_group() as tasks:
            for messages in self._beside:
                tasks.start_soon(decoders.decode, messages)
            await decoders.settle()
            await use(decoders)
            tasks.cancel_scope.cancel()
        # The step under way still has them, and so may the engine until it sees that we left.
        await anyio.sleep(LEAVING_S + FIRST_TOKENS * max(decoders.gaps(0.0, math.inf)))


class _Decoders:
    """Sequences that decode until they are cancelled; the first of them is watched."""

    def __init__(self, client: ChatClient, num_tokens: int) -> None:
        self._client = client
        self.num_tokens = num_tokens
        self.times_s: list[list[float]] = []
        self._came = anyio.Event()

    async def decode(self, messages: list[dict[str, Any]]) -> None:
        times_s: list[float] = []
        self.times_s.append(times_s)

        def came(at_s: float) -> None:
            times_s.append(at_s)
            self._came.set()

        await timed_reply(self._client, messages, self.num_tokens, came)
        self._came.set()

    async def settle(self) -> None:
        """Wait until every one of them has got some more tokens."""
        wanted = [len(times_s) + FIRST_TOKENS for times_s in self.times_s]
        while len(self.times_s) < BESIDE or any(
            len(times_s) < min(want, self.num_tokens)
            for times_s, want in zip(self.times_s, wanted or [FIRST_TOKENS] * BESIDE, strict=True)
        ):
            self._came = anyio.Event()
            await self._came.wait()

    def gaps(self, from_s: float, to_s: float) -> list[float]:
        """Return the first one's gaps that ended in that time."""
        return [b - a for a, b in pairwise(self.times_s[0]) if from_s < b <= to_s]


def _beside_decoders(
    num_tokens: int, reply: TimedReply, decoders: _Decoders, budget: int
) -> list[Observation]:
    """Take the time from the token before a prompt was sent to the one after it was computed."""
    times_s = decoders.times_s[0]
    first = bisect_right(times_s, reply.sent_s) - 1
    last = bisect_right(times_s, reply.token_times_s[0]) + 1
    if first < 0 or last >= len(times_s) or len(times_s) >= decoders.num_tokens:
        return []  # they have nothing left to generate
    contexts = [
        BESIDE_CONTEXT_TOKENS + bisect_right(each, reply.sent_s) for each in decoders.times_s
    ]
    beside = decode_step(contexts)
    steps: tuple[StepShape, ...] = prompt_steps(
        reply.num_prompt_tokens, reply.num_cached_tokens or 0, budget, beside
    )
    num_gaps = last - first
    if num_gaps < len(steps):
        return []  # the engine cuts prompts in a way that is not known
    return [
        Observation(
            ProbeKind.MIXED,
            f"{num_tokens:,}",
            (*steps, *(beside,) * (num_gaps - len(steps))),
            None,
            times_s[last] - times_s[first],
        )
    ]


def ladder(longest_tokens: int) -> tuple[int, ...]:
    """Return prompt lengths: fourfold from the shortest on, and more near the longest."""
    num_rungs = int(math.log(longest_tokens / SHORTEST_TOKENS, 4)) + 1
    rungs = [SHORTEST_TOKENS * 4**power for power in range(num_rungs)]
    return tuple(sorted({*rungs, longest_tokens // 4, longest_tokens // 2, longest_tokens}))
