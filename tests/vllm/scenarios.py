"""Seeded scenarios for an engine: requests that share prefixes, go on, collide and are aborted.

Imported by two interpreters, one of which has only vLLM: standard library only.
"""

from __future__ import annotations

import random  # noqa: TID251 - vLLM's venv need not have numpy's generators
from dataclasses import dataclass, replace

KINDS = ("fcfs", "priority", "long prefill", "async")
"""What a scenario is about. The first three are synchronous; "async" has some of each."""


@dataclass(frozen=True)
class ScenarioRequest:
    """A request that is added before step ``at_step``; ``tokens`` are prompt and forced output."""

    request_id: str
    at_step: int
    num_prompt_tokens: int
    num_output_tokens: int
    tokens: tuple[int, ...]
    priority: int = 0


@dataclass(frozen=True, order=True)
class Abort:
    """An abort that comes before step ``at_step``, or while the model computes."""

    at_step: int
    request_id: str
    during_step: bool


@dataclass(frozen=True)
class Scenario:
    """What an engine is given. ``num_blocks`` counts vLLM's null block, which nobody gets."""

    seed: int
    block_size: int
    num_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    prefix_caching: bool
    requests: tuple[ScenarioRequest, ...]
    aborts: tuple[Abort, ...]
    policy: str = "fcfs"
    long_prefill_token_threshold: int = 0
    long_prefill_token_threshold_adaptive: bool = False
    async_scheduling: bool = False


@dataclass(frozen=True)
class Load:
    """The most blocks of a part of a request, and the last step before which one arrives."""

    trunk_blocks: int
    prompt_blocks: int
    output_blocks: int
    last_step: int


MIXTURE = Load(trunk_blocks=10, prompt_blocks=8, output_blocks=3, last_step=200)
CROWD = Load(trunk_blocks=3, prompt_blocks=2, output_blocks=10, last_step=40)


def scenario(seed: int, kind: str = "fcfs") -> Scenario:
    """Draw a scenario: prompts at block borders, growing turns, pools from tight to roomy."""
    rng = random.Random(f"{kind} {seed}")  # noqa: S311 - a test's seed
    block_size = rng.choice([4, 16, 64, 128])
    is_crowded = rng.random() < 0.3  # much overlaps, in a pool for hardly more than the longest
    requests = _requests(rng, block_size, CROWD if is_crowded else MIXTURE)
    longest = max(request.num_prompt_tokens + request.num_output_tokens for request in requests)
    budget = rng.choice([block_size * 2, block_size * 8, block_size * 30])
    synchronous = Scenario(
        seed=seed,
        block_size=block_size,
        num_blocks=-(-longest // block_size)
        + 2
        + rng.choice([0, 1, 3] if is_crowded else [0, 0, 1, 3, 10, 100]),
        max_num_seqs=min(budget, rng.choice([4, 16] if is_crowded else [1, 2, 4, 16])),
        max_num_batched_tokens=budget,
        prefix_caching=rng.random() < 0.85,
        requests=tuple(sorted(requests, key=lambda request: request.at_step)),
        aborts=_aborts(rng, requests, budget),
    )
    return _of_kind(rng, kind, synchronous)


def _of_kind(rng: random.Random, kind: str, given: Scenario) -> Scenario:
    if kind == "async":
        given = replace(given, async_scheduling=True)
        kind = rng.choice(KINDS[:3])
    if kind == "priority":
        levels = rng.choice([1, 2, 5])
        urgent = [replace(r, priority=rng.randint(-levels, levels)) for r in given.requests]
        given = replace(given, policy="priority", requests=tuple(urgent))
    if kind == "long prefill" or (kind == "priority" and rng.random() < 0.2):
        given = replace(
            given,
            long_prefill_token_threshold=rng.choice(
                [given.block_size - 1, given.block_size, given.block_size + 1, given.block_size * 3]
            ),
            long_prefill_token_threshold_adaptive=rng.random() < 0.3,
        )
    return given


def _requests(rng: random.Random, block_size: int, load: Load) -> list[ScenarioRequest]:
    trunk = _tokens(rng, block_size * 20)
    requests: list[ScenarioRequest] = []
    contexts: list[tuple[int, ...]] = []
    for number in range(rng.randint(2, 12)):
        drawn = rng.random()
        if contexts and drawn < 0.35:  # the next turn of a session
            prompt = rng.choice(contexts) + _tokens(rng, rng.randint(1, block_size * 3))
        elif contexts and drawn < 0.45:  # wholly cached, if it still is, up to a block's border
            known = rng.choice(contexts)
            prompt = known[: max(1, len(known) // block_size) * block_size]
        else:
            lengths = [1, block_size - 1, block_size, block_size + 1]
            own = rng.choice([*lengths, rng.randint(1, block_size * load.prompt_blocks)])
            prompt = trunk[: rng.randint(0, block_size * load.trunk_blocks)] + _tokens(rng, own)
        output = rng.randint(1, min(block_size * load.output_blocks, 150))
        tokens = prompt + _tokens(rng, output + 1)
        contexts.append(tokens[: len(prompt) + output])
        at_step = rng.choice(
            [0, 0, rng.randint(0, load.last_step // 4), rng.randint(0, load.last_step)]
        )
        requests.append(ScenarioRequest(f"r{number:02d}", at_step, len(prompt), output, tokens))
    return requests


def _aborts(rng: random.Random, requests: list[ScenarioRequest], budget: int) -> tuple[Abort, ...]:
    """Draw aborts: early, somewhere, and around the step in which a request may finish."""
    aborts = []
    for _ in range(rng.choice([0, 0, 1, 3, 6])):
        request = rng.choice(requests)
        at_finish = -(-request.num_prompt_tokens // budget) + request.num_output_tokens - 2
        after = rng.choice(
            [rng.randint(0, 10), rng.randint(0, 100), max(0, at_finish + rng.randint(-1, 1))]
        )
        aborts.append(Abort(request.at_step + after, request.request_id, rng.random() < 0.5))
    return tuple(sorted(aborts))


def _tokens(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randint(1, 900) for _ in range(count))
