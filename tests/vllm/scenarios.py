"""Seeded scenarios for an engine: requests that share prefixes, go on, collide and are aborted.

Imported by two interpreters, one of which has only vLLM: standard library only.
"""

from __future__ import annotations

import random  # noqa: TID251 - vLLM's venv need not have numpy's generators
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ScenarioRequest:
    """A request that is added before step ``at_step``; ``tokens`` are prompt and forced output."""

    request_id: str
    at_step: int
    num_prompt_tokens: int
    num_output_tokens: int
    tokens: tuple[int, ...]


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
    aborts: tuple[tuple[int, str], ...]  # (before step, request id)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def scenario(seed: int) -> Scenario:
    """Draw a scenario: prompts at block borders, growing turns, pools from tight to roomy."""
    rng = random.Random(seed)  # noqa: S311 - a test's seed
    block_size = rng.choice([4, 16, 64, 128])
    trunk = _tokens(rng, block_size * 20)
    requests: list[ScenarioRequest] = []
    contexts: list[tuple[int, ...]] = []
    for number in range(rng.randint(2, 12)):
        if contexts and rng.random() < 0.35:
            prompt = rng.choice(contexts) + _tokens(rng, rng.randint(1, block_size * 3))
        else:
            lengths = [1, block_size - 1, block_size, block_size + 1]
            own = rng.choice([*lengths, rng.randint(1, block_size * 8)])
            prompt = trunk[: rng.randint(0, block_size * 10)] + _tokens(rng, own)
        output = rng.randint(1, min(block_size * 3, 150))
        tokens = prompt + _tokens(rng, output + 1)
        contexts.append(tokens[: len(prompt) + output])
        at_step = rng.choice([0, 0, rng.randint(0, 40), rng.randint(0, 200)])
        name = f"r{number:02d}"
        requests.append(ScenarioRequest(name, at_step, len(prompt), output, tokens))
    longest = max(len(context) for context in contexts)
    budget = rng.choice([block_size * 2, block_size * 8, block_size * 30])
    return Scenario(
        seed=seed,
        block_size=block_size,
        num_blocks=-(-longest // block_size) + 2 + rng.choice([0, 1, 3, 10, 100]),
        max_num_seqs=min(budget, rng.choice([1, 2, 4, 16])),
        max_num_batched_tokens=budget,
        prefix_caching=rng.random() < 0.85,
        requests=tuple(sorted(requests, key=lambda request: request.at_step)),
        aborts=tuple(
            sorted(
                (rng.randint(0, 60), rng.choice(requests).request_id)
                for _ in range(rng.choice([0, 0, 1, 3]))
            )
        ),
    )


def _tokens(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randint(1, 900) for _ in range(count))
