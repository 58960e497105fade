"""``panjiu calibrate --engine URL``: measures a running engine and fits a chip to it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import anyio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agent_runtime.backends.vllm_servers.engine_discovery import engine_url
from agent_runtime.chat_client import ChatClient, ChatServer
from agent_runtime.cli.catalog_option import chosen_catalog
from agent_runtime.cli.catalog_toml import chip_like_toml, model_toml, rack_toml, write_whole
from agent_runtime.cli.engine_options import engine_key
from agent_runtime.cli.fit_report import error_table, numbers_table
from agent_runtime.cli.measured_model import add_measured_model_options, measured_model
from agent_runtime.cli.rack_options import natural_int, positive_float, positive_int
from agent_runtime.clock import epoch_s
from agent_runtime.engine_measurement.engine_facts import EngineFacts, engine_facts
from agent_runtime.engine_measurement.measure_engine import EngineMeasurement, LoadDesign
from agent_runtime.errors import told_plainly
from hw_model.catalog import Catalog
from hw_model.claim import Claim, Trust
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.engine_fit import EngineFit, fit_engine
from hw_model.errors import TooLittleMeasuredError
from hw_model.kv_room import with_kv_blocks
from hw_model.specs import ChipSpec, ModelSpec, Precision, RackSpec

DEFAULT_MINUTES = 4.0
MAX_ROUNDS = 8
LONGEST_TOKENS = 32_768
"""Longer prompts say little more and take long."""

REPLY_ROOM_TOKENS = 256
"""Kept free for replies at the end of a context."""

KV_SHARE = 0.8
"""Of the KV that the longest prompt may take."""

SILENCE_S = 120.0
"""An engine that sends nothing for so long is given up."""

DEFAULT_BLOCK_TOKENS = 16
EXIT_INTERRUPTED = 130


def add_engine_measurement_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that go with ``--engine``."""
    group = parser.add_argument_group(
        "measuring an engine", "its key, if any, is in PANJIU_ENGINE_API_KEY"
    )
    group.add_argument(
        "--minutes",
        type=positive_float,
        default=DEFAULT_MINUTES,
        metavar="M",
        help="measure so long at most (default: %(default)g)",
    )
    group.add_argument(
        "--longest",
        type=positive_int,
        metavar="N",
        help=f"tokens of the longest prompt (default: what the engine holds, up to "
        f"{LONGEST_TOKENS:,})",
    )
    group.add_argument(
        "--name", metavar="NAME", help="of the chip and the rack in --out (measured-CHIP)"
    )
    group.add_argument(
        "--tp", type=positive_int, default=1, metavar="N", help="chips of the engine (default: 1)"
    )
    precisions = [precision.value for precision in Precision]
    group.add_argument(
        "--precision", choices=precisions, default="bf16", help="of its weights (default: bf16)"
    )
    group.add_argument(
        "--kv-precision", choices=precisions, default="bf16", help="of its KV (default: bf16)"
    )
    group.add_argument(
        "--max-num-batched-tokens",
        type=positive_int,
        metavar="N",
        help="new tokens it computes in one step, where that is no power of two (default: found)",
    )
    group.add_argument(
        "--block-size", type=positive_int, metavar="N", help="of its KV, if /metrics doesn't say"
    )
    group.add_argument(
        "--seed",
        type=natural_int,
        metavar="N",
        help="of the prompts, which the engine must not have seen before (default: the time)",
    )
    add_measured_model_options(group)


@dataclass(frozen=True, slots=True)
class _Engine:
    """The engine and the machine that it is taken for before it is measured."""

    url: str
    facts: EngineFacts
    model: ModelSpec
    is_new_model: bool
    base: ChipSpec
    rack: RackSpec
    deployment: Deployment

    @property
    def kv_tokens(self) -> int | None:
        """What its KV holds, or None where it doesn't say."""
        blocks, size = self.facts.num_kv_blocks, self.facts.block_size_tokens
        return None if blocks is None or size is None else blocks * size


def calibrate_engine(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    url = engine_url(args.engine, "--engine")
    catalog = chosen_catalog(args)
    catalog.chip(args.chip)
    console = Console(stderr=args.out is None)
    run = _Run(args, url, catalog)
    interrupted = False
    try:
        with told_plainly():
            anyio.run(run.measure)
    except KeyboardInterrupt:
        interrupted = True
    measurement, engine = run.measurement, run.engine
    if measurement is None or engine is None:
        raise KeyboardInterrupt
    try:
        fit = _fitted(engine, measurement)
    except TooLittleMeasuredError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    if interrupted:
        console.print("interrupted; fitted to what was measured so far")
    _report(console, engine, measurement, fit)
    _write(console, args.out, overlay_toml(engine, fit))
    return EXIT_INTERRUPTED if interrupted else 0


class _Run:
    """What there is so far, whenever it is interrupted."""

    def __init__(self, args: argparse.Namespace, url: str, catalog: Catalog) -> None:
        self._args = args
        self._url = url
        self._catalog = catalog
        self.engine: _Engine | None = None
        self.measurement: EngineMeasurement | None = None

    async def measure(self) -> None:
        """Ask the engine what it is, then measure it, with a progress bar."""
        args = self._args
        server = ChatServer(f"{self._url}/v1", args.model, engine_key(), SILENCE_S)
        async with ChatClient(server) as client:
            facts = await engine_facts(client, args.model)
        self.engine = engine = _engine(args, self._url, self._catalog, facts)
        design = _design(args, engine)
        total = MAX_ROUNDS * len(design.probes())
        async with ChatClient(replace(server, model=facts.model)) as client:
            with _bar() as progress:
                task = progress.add_task("", total=total)
                self.measurement = EngineMeasurement(
                    client,
                    design,
                    lambda title, done: progress.update(task, description=title, completed=done),
                )
                await self.measurement.run(anyio.current_time() + 60 * args.minutes)


def _engine(args: argparse.Namespace, url: str, catalog: Catalog, facts: EngineFacts) -> _Engine:
    model, is_new = measured_model(args, catalog, facts.model)
    base = catalog.chip(args.chip)
    name = args.name or f"measured-{base.name}"
    chip = base.model_copy(update={"name": name, "title": f"{base.title}, measured on {url}"})
    count = Claim(value=args.tp, source=f"--tp of {url}", trust=Trust.MEASURED)
    rack = RackSpec(
        name=name,
        title=f"{args.tp} x {chip.title}",
        chip=name,
        num_chips=count,
        domain_chips=count,
    )
    request = DeploymentRequest(
        precision=Precision(args.precision),
        kv_precision=Precision(args.kv_precision),
        tp=args.tp,
        block_size_tokens=facts.block_size_tokens or args.block_size or DEFAULT_BLOCK_TOKENS,
    )
    deployment = plan_deployment(rack, chip, model, request)
    return _Engine(url, facts, model, is_new, base, rack, deployment)


def _design(args: argparse.Namespace, engine: _Engine) -> LoadDesign:
    limits = [args.longest or LONGEST_TOKENS]
    if engine.facts.max_context_tokens is not None:
        limits.append(engine.facts.max_context_tokens - REPLY_ROOM_TOKENS)
    if engine.kv_tokens is not None:
        limits.append(int(KV_SHARE * engine.kv_tokens))
    return LoadDesign(
        longest_tokens=min(limits),
        kv_tokens=engine.kv_tokens,
        budget_tokens=args.max_num_batched_tokens,
        assumed_budget_tokens=EngineLimits().max_num_batched_tokens,
        max_rounds=MAX_ROUNDS,
        seed=int(epoch_s()) if args.seed is None else args.seed,
    )


def _fitted(engine: _Engine, measurement: EngineMeasurement) -> EngineFit:
    date = datetime.fromtimestamp(epoch_s(), UTC).date()
    source = f"measured on {engine.url}, {date}"
    fit = fit_engine(engine.deployment, measurement.observations, source=source)
    num_blocks = engine.facts.num_kv_blocks
    if num_blocks is None:
        return fit
    # One of vLLM's blocks is its null block.
    fitted = replace(engine.deployment, chip=fit.chip)
    return replace(fit, chip=with_kv_blocks(fitted, max(1, num_blocks - 1), source=source))


def overlay_toml(engine: _Engine, fit: EngineFit) -> str:
    """Return the chip, a rack of it and, if the catalog has none, the model."""
    parts = [chip_like_toml(fit.chip, engine.base), rack_toml(engine.rack)]
    if engine.is_new_model:
        parts.append(model_toml(engine.model))
    return "\n".join(parts)


def _report(
    console: Console, engine: _Engine, measurement: EngineMeasurement, fit: EngineFit
) -> None:
    console.print(numbers_table(engine.base, fit.chip))
    console.print(error_table(fit))
    facts = engine.facts
    if measurement.is_budget_found:
        console.print(f"a step computes {measurement.budget_tokens:,} new tokens at most")
    else:
        console.print(
            f"no prompt took two steps; a step is taken to compute {measurement.budget_tokens:,} "
            "new tokens at most: if you know, say so with --max-num-batched-tokens"
        )
    if measurement.refused_tokens is not None:
        console.print(f"prompts of {measurement.refused_tokens:,} tokens and more were refused")
    if facts.num_kv_blocks is None:
        console.print("/metrics does not say what the KV holds; the chip's own memory stays")
    block = engine.deployment.block_size_tokens
    console.print(
        f"the same engine, emulated: --rack {engine.rack.name} --model {engine.model.name} "
        f"--tp {engine.deployment.tp} --precision {engine.deployment.precision} "
        f"--block-size {block} --max-num-batched-tokens {measurement.budget_tokens}",
        highlight=False,
        soft_wrap=True,
    )


def _write(console: Console, out: str | None, text: str) -> None:
    if out is None:
        print(text, end="")
        return
    write_whole(out, text)
    console.print(f"wrote {out}; use it with --catalog {out}", highlight=False)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:>52}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
