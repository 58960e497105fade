"""Predicts a running engine on agents it was not calibrated with, request by request.

    python -m benchmarks.fidelity.live_engine --engine URL --catalog OVERLAY --rack R --model M

OVERLAY is what ``panjiu calibrate --engine URL`` wrote. Several agents run at once, each a loop of
turns over a growing context with tool gaps between them, and share a system prompt. The emulated
engine gets the same agents: prompts of the same tokens (as the engine's own ``/tokenize`` has
them), so the same prefixes, replies of the same length, and the next turn as long after the end of
the last. Everything else is its own: it is told nothing of when anything happened.

The agents run more than once, with other words each time. How far the same turn is from itself is
the noise: no prediction is closer.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
import httpx2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from agent_runtime.chat_client import ChatClient, ChatServer
from agent_runtime.cli.fit_report import error_table
from agent_runtime.engine_measurement.filler_text import WORDS
from agent_runtime.engine_measurement.measure_engine import EngineMeasurement, LoadDesign
from agent_runtime.engine_measurement.timed_reply import timed_reply
from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.engine_core import EngineCore
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.engine_fit import fit_engine
from hw_model.engine_observations import Observation
from hw_model.specs import Precision
from hw_model.step_time import StepTimeModel
from hw_model.ttft_boundary import TtftBoundary

FloatArray = NDArray[np.float64]

SYSTEM_WORDS = 300
TASK_WORDS = (20, 400)
RESULT_WORDS = (10, 700)
REPLY_TOKENS = (12, 80)
GAP_S = (0.2, 2.5)
STAGGER_S = 0.7
SILENCE_S = 120.0


@dataclass(frozen=True)
class Turn:
    """One model call, before anything ran."""

    messages: list[dict[str, Any]]
    num_output_tokens: int
    gap_s: float


@dataclass(frozen=True)
class Timed:
    """A turn's seconds, and the prompt tokens that were cached."""

    ttft_s: float
    e2e_s: float
    num_cached_tokens: int


def agents(num_agents: int, num_turns: int, seed: int, words_seed: int) -> list[list[Turn]]:
    """Return the agents; lengths and gaps depend on ``seed`` alone."""
    shape, words = np.random.default_rng([seed, 1]), np.random.default_rng([words_seed, 2])

    def text(num_words: int) -> str:
        return " ".join(words.choice(WORDS, num_words).tolist())

    def between(low: float, high: float) -> float:
        return float(np.exp(shape.uniform(np.log(low), np.log(high))))

    system = {"role": "system", "content": text(SYSTEM_WORDS)}
    sessions = []
    for number in range(num_agents):
        messages: list[dict[str, Any]] = [system]
        turns: list[Turn] = []
        for step in range(num_turns):
            lengths = RESULT_WORDS if step else TASK_WORDS
            messages = [*messages, {"role": "user", "content": text(int(between(*lengths)))}]
            num_output = int(between(*REPLY_TOKENS))
            turns.append(
                Turn(messages, num_output, between(*GAP_S) if step else number * STAGGER_S)
            )
            # What was generated is made up; an agent that goes on says something of that length.
            reply = {"role": "assistant", "content": text(num_output)}
            messages = [*messages, reply]
        sessions.append(turns)
    return sessions


async def run_live(client: ChatClient, sessions: Sequence[Sequence[Turn]]) -> list[list[Timed]]:
    """Run all agents at once; return their turns' times."""
    results: list[list[Timed]] = [[] for _ in sessions]

    async def run(number: int) -> None:
        for turn in sessions[number]:
            await anyio.sleep(turn.gap_s)
            reply = await timed_reply(client, turn.messages, turn.num_output_tokens)
            results[number].append(Timed(reply.ttft_s, reply.e2e_s, reply.num_cached_tokens or 0))

    async with anyio.create_task_group() as tasks:
        for number in range(len(sessions)):
            tasks.start_soon(run, number)
    return results


async def tokenised(
    http: httpx2.AsyncClient, model: str, sessions: Sequence[Sequence[Turn]]
) -> list[list[list[int]]]:
    """Ask an engine for the tokens of every prompt."""

    async def tokens(turn: Turn) -> list[int]:
        answer = await http.post("/tokenize", json={"model": model, "messages": turn.messages})
        found: list[int] = answer.raise_for_status().json()["tokens"]
        return found

    return [[await tokens(turn) for turn in turns] for turns in sessions]


def run_emulated(
    deployment: Deployment,
    limits: EngineLimits,
    sessions: Sequence[Sequence[Turn]],
    prompts: Sequence[Sequence[list[int]]],
) -> list[list[Timed]]:
    """Run the same agents on the emulated engine, closed-loop."""
    core = EngineCore(
        KvManager(deployment.kv_blocks, deployment.block_size_tokens),
        limits,
        StepTimeModel(deployment, Band.BASE),
    )
    front_end = TtftBoundary.CLIENT.front_end(deployment.chip, Band.BASE)
    results: list[list[Timed]] = [[] for _ in sessions]
    sent_s: dict[RequestId, float] = {}
    first_s: dict[RequestId, float] = {}
    arrivals: list[tuple[float, int]] = []

    def send(number: int, from_s: float) -> None:
        turn = len(results[number])
        if turn < len(sessions[number]):
            at_s = from_s + sessions[number][turn].gap_s
            sent_s[RequestId(f"{number}/{turn}")] = at_s
            before_s = front_end.before_engine_s(len(prompts[number][turn]))
            heapq.heappush(arrivals, (at_s + before_s, number))

    for number in range(len(sessions)):
        send(number, 0.0)
    while arrivals or core.next_event_s is not None:
        step_s = core.next_event_s
        if arrivals and (step_s is None or arrivals[0][0] <= step_s):
            at_s, number = heapq.heappop(arrivals)
            turn = len(results[number])
            tokens = prompts[number][turn]
            core.add(
                EngineRequest(
                    RequestId(f"{number}/{turn}"),
                    len(tokens),
                    sessions[number][turn].num_output_tokens,
                    _block_hashes(tokens, deployment.block_size_tokens),
                ),
                at_s,
            )
            continue
        assert step_s is not None  # noqa: S101 - else there were arrivals
        for generated in core.advance(step_s):
            request_id = generated.request_id
            first_s.setdefault(request_id, generated.at_s)
            if generated.finished:
                number, began_s = int(request_id.partition("/")[0]), sent_s[request_id]
                results[number].append(
                    Timed(
                        first_s[request_id] - began_s,
                        generated.at_s - began_s,
                        generated.num_cached_tokens,
                    )
                )
                send(number, generated.at_s)
    return results


def _block_hashes(tokens: Sequence[int], block_size: int) -> list[int]:
    hashes: list[int] = []
    for end in range(block_size, len(tokens) + 1, block_size):
        before = hashes[-1] if hashes else 0
        hashes.append(hash((before, *tokens[end - block_size : end])) & (2**64 - 1))
    return hashes


def errors_table(
    measured: Sequence[Sequence[Timed]], predicted: Sequence[Sequence[Timed]]
) -> Table:
    """Return how far single requests are off, and their medians over the runs.

    The noise beside either is how far the measured ones are from their own medians, and the medians
    of one half of the runs from those of the other.

    Args:
        measured: [runs][requests]
        predicted: [runs][requests]
    """
    table = Table("", "p50", "mean", "p90", "bias")
    for name in ("ttft_s", "e2e_s"):
        real = np.array([[getattr(timed, name) for timed in run] for run in measured])
        own = np.array([[getattr(timed, name) for timed in run] for run in predicted])
        title, usual = name.removesuffix("_s").upper(), np.median(real, axis=0)
        table.add_row(f"{title} of a request", *_cells(own / real - 1))
        table.add_row("   noise: itself against its median", *_cells(usual / real - 1))
        table.add_row(
            f"{title} of a request, median of {len(real)} runs",
            *_cells(np.median(own, axis=0) / usual - 1),
        )
        if len(real) > 1:
            halves = np.median(real[::2], axis=0), np.median(real[1::2], axis=0)
            table.add_row(
                "   noise: half the runs against the rest", *_cells(halves[0] / halves[1] - 1)
            )
    return table


def _cells(errors: FloatArray) -> list[str]:
    sizes = np.abs(errors)
    return [
        f"{np.median(sizes):.1%}",
        f"{sizes.mean():.1%}",
        f"{np.quantile(sizes, 0.9):.1%}",
        f"{np.median(errors):+.1%}",
    ]


def calibrated(args: argparse.Namespace) -> Deployment:
    """Lay the model out on the calibrated chip, as one replica."""
    text = Path(args.catalog).read_text(encoding="utf-8")
    catalog = Catalog.packaged().with_file(text, file=args.catalog)
    rack = catalog.rack(args.rack)
    request = DeploymentRequest(
        precision=Precision(args.precision),
        tp=args.tp,
        num_replicas=1,
        block_size_tokens=args.block_size,
    )
    return plan_deployment(rack, catalog.chip(rack.chip), catalog.model(args.model), request)


@dataclass
class Runs:
    """What was measured.

    Attributes:
        sessions: Of each run.
        prompts: Their prompts' tokens.
        times: Their turns' times.
        observations: Of the rounds of calibration between them.
    """

    sessions: list[list[list[Turn]]] = field(default_factory=list)
    prompts: list[list[list[list[int]]]] = field(default_factory=list)
    times: list[list[list[Timed]]] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)


async def measure(args: argparse.Namespace, deployment: Deployment) -> Runs:
    """Run the agents as often as asked for, and the calibration between them if it is."""
    url = args.engine.rstrip("/").removesuffix("/v1")
    served = args.served_model or args.model
    runs = Runs()
    async with (
        ChatClient(ChatServer(f"{url}/v1", served, timeout_s=SILENCE_S)) as client,
        httpx2.AsyncClient(base_url=url, timeout=SILENCE_S) as http,
    ):
        for _ in range(args.runs):
            seed = time.time_ns()
            if args.interleave:
                design = LoadDesign(
                    longest_tokens=args.interleave,
                    kv_tokens=deployment.kv_tokens,
                    budget_tokens=args.max_num_batched_tokens,
                    assumed_budget_tokens=args.max_num_batched_tokens,
                    max_rounds=1,
                    seed=seed,
                )
                measurement = EngineMeasurement(client, design)
                await measurement.run(math.inf)
                runs.observations += measurement.observations
            sessions = agents(args.agents, args.turns, args.seed, seed)
            runs.sessions.append(sessions)
            runs.prompts.append(await tokenised(http, served, sessions))
            runs.times.append(await run_live(client, sessions))
    return runs


def report(args: argparse.Namespace, deployment: Deployment, runs: Runs) -> None:
    """Predict every run and print how far off each request is."""
    console = Console()
    if runs.observations:
        fit = fit_engine(deployment, runs.observations, source="between the runs")
        deployment = replace(deployment, chip=fit.chip)
        console.print(error_table(fit))
    limits = EngineLimits(args.max_num_batched_tokens, args.max_num_seqs)
    predicted = [
        list(chain(*run_emulated(deployment, limits, sessions, prompts)))
        for sessions, prompts in zip(runs.sessions, runs.prompts, strict=True)
    ]
    measured = [list(chain(*times)) for times in runs.times]
    lengths = [len(tokens) for prompts in runs.prompts for tokens in chain(*prompts)]
    num_off = sum(
        one.num_cached_tokens != other.num_cached_tokens
        for one, other in zip(chain(*measured), chain(*predicted), strict=True)
    )
    console.print(
        f"{args.agents} agents x {args.turns} turns, {args.runs} runs: {len(lengths)} requests of "
        f"{min(lengths):,} to {max(lengths):,} prompt tokens; {num_off} with other cached tokens "
        "than predicted"
    )
    if args.verbose:
        for one, other in zip(measured[-1], predicted[-1], strict=True):
            console.print(f"measured {one}\npredicted {other}", highlight=False)
    console.print(errors_table(measured, predicted))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engine", required=True, metavar="URL")
    parser.add_argument("--catalog", required=True, metavar="OVERLAY")
    parser.add_argument("--rack", required=True)
    parser.add_argument("--model", required=True, help="as the overlay calls it")
    parser.add_argument("--served-model", help="as the engine calls it, if otherwise")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--max-num-batched-tokens", type=int, default=2048)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument(
        "--interleave",
        type=int,
        metavar="N",
        help="calibrate again, a round with prompts of up to N tokens before every run, and\n"
        "predict with that: for a machine whose speed drifts",
    )
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    deployment = calibrated(args)
    report(args, deployment, anyio.run(measure, args, deployment))


if __name__ == "__main__":
    main()
