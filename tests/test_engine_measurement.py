"""Measuring an engine: our own rack gives its numbers back; what is wrong with others is said."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar

import anyio
import httpx2
import numpy as np
import pytest

from agent_runtime.asgi_exchange import AsgiApp
from agent_runtime.chat_client import ChatClient, ChatServer
from agent_runtime.cli.catalog_toml import chip_like_toml, model_toml, rack_toml, write_whole
from agent_runtime.cli.main import main
from agent_runtime.clock import Clock
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.engine_measurement.engine_facts import EngineFacts, engine_facts
from agent_runtime.engine_measurement.measure_engine import EngineMeasurement, LoadDesign
from agent_runtime.engine_measurement.timed_reply import timed_reply
from agent_runtime.errors import BackendError, ConfigError, told_plainly
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.look_alikes.look_alikes import LookAlikeOptions, LookAlikes
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from benchmarks.fidelity.live_engine import Timed, agents, run_emulated, run_live, tokenised
from hw_model.claim import Band, Claim, Trust
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.engine_fit import EngineFit, fit_engine, with_values
from hw_model.specs import ChipSpec, Precision, RackSpec
from hw_model.ttft_boundary import TtftBoundary
from tests.engines import CATALOG
from tests.lookalike_engine import LookalikeEngine, running_engine

H100 = CATALOG.chip("h100")
MODEL = "qwen3-8b"
BLOCK = 16
BUDGET = 2048
LIMITS = EngineLimits(BUDGET, 64)
SERVER = ChatServer("http://engine:8000/v1", MODEL)
T = TypeVar("T")
DESIGN = LoadDesign(
    longest_tokens=8000,
    kv_tokens=None,
    budget_tokens=None,
    assumed_budget_tokens=8192,
    max_rounds=1,
)


def on(chip: ChipSpec) -> Deployment:
    one = Claim(value=1, source="a test", trust=Trust.MEASURED)
    rack = RackSpec(name="r", title="r", chip=chip.name, num_chips=one, domain_chips=one)
    request = DeploymentRequest(precision=Precision.BF16, tp=1, block_size_tokens=BLOCK)
    return plan_deployment(rack, chip, CATALOG.model(MODEL), request)


@dataclasses.dataclass
class Outcome:
    facts: EngineFacts
    measurement: EngineMeasurement


@asynccontextmanager
async def emulated_engine(deployment: Deployment, *, front_end: bool) -> AsyncIterator[AsgiApp]:
    """Run an emulated engine: a look-alike, or one with a front end before it."""
    app: AsgiApp
    if front_end:
        options = ServiceOptions(Band.BASE, "home_for_life", LIMITS, TtftBoundary.CLIENT)
        service = EmulatedService(deployment, options, Clock(), SeededModel(), epoch_s=lambda: 0.0)
        app, rack = service.app, service.rack
    else:
        look_alikes = LookAlikes(
            deployment,
            LookAlikeOptions(Band.BASE, LIMITS, EndpointLimits()),
            Clock(),
            SeededModel(),
            epoch_s=lambda: 0.0,
        )
        app, rack = look_alikes.apps[0], look_alikes.rack
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rack.run)
        yield app
        tasks.cancel_scope.cancel()


def in_virtual_time(run: Callable[[], Awaitable[T]]) -> T:
    with told_plainly():
        return anyio.run(run, backend_options={"loop_factory": VirtualTimeLoop})


def measured_in_virtual_time(
    deployment: Deployment, design: LoadDesign = DESIGN, *, front_end: bool, minutes: float = 60
) -> Outcome:
    async def run() -> Outcome:
        async with (
            emulated_engine(deployment, front_end=front_end) as app,
            ChatClient(SERVER, StreamingAsgiTransport(app)) as client,
        ):
            facts = await engine_facts(client, None)
            measurement = EngineMeasurement(client, design)
            await measurement.run(anyio.current_time() + 60 * minutes)
        return Outcome(facts, measurement)

    return in_virtual_time(run)


def fitted(outcome: Outcome) -> EngineFit:
    return fit_engine(on(H100), outcome.measurement.observations, source="a test")


TRUTHS = {
    "a card": {"gemm_efficiency": 0.4, "hbm_efficiency": 0.6, "request_overhead_s": 2e-3},
    "a slow host": {
        "step_overhead_s": 12e-3,
        "sequence_overhead_s": 2e-4,
        "front_end_overhead_s": 25e-3,
        "prefill_layer_overhead_s": 1e-5,
    },
    "a processor": {
        "gemm_efficiency": 3e-3,
        "attention_efficiency": 2e-3,
        "kv_read_efficiency": 0.02,
        "step_overhead_s": 5e-3,
        "front_end_token_overhead_s": 4e-6,
    },
}


def base_s(chip: ChipSpec) -> float:
    layers = CATALOG.model(MODEL).num_layers
    return chip.step_overhead_s.value + layers * chip.layer_overhead_s.value


@pytest.mark.parametrize("name", TRUTHS)
def test_our_own_rack_gives_its_numbers_back(name: str) -> None:
    truth = with_values(H100, {"front_end_token_overhead_s": 1e-6, **TRUTHS[name]}, "the truth")
    outcome = measured_in_virtual_time(on(truth), front_end=True)
    assert outcome.measurement.budget_tokens == BUDGET
    assert outcome.measurement.is_budget_found
    fit = fitted(outcome)
    assert np.abs(fit.errors()).max() < 0.02
    assert base_s(fit.chip) == pytest.approx(base_s(truth), rel=0.02)
    for field in TRUTHS[name]:
        # Nothing is as short as that floor; what a step takes is not told from its layers.
        if field not in {"prefill_layer_overhead_s", "step_overhead_s"}:
            expected = truth.claims()[field].value
            assert fit.chip.claims()[field].value == pytest.approx(expected, rel=0.02), field


def test_a_look_alike_is_measured_as_vllm_is() -> None:
    deployment = on(H100)
    outcome = measured_in_virtual_time(deployment, front_end=False)
    assert outcome.facts == EngineFacts(MODEL, deployment.kv_tokens, deployment.kv_blocks, BLOCK)
    fit = fitted(outcome)
    assert np.abs(fit.errors()).max() < 0.02
    assert fit.chip.front_end_overhead_s.value < 1e-4


@pytest.mark.parametrize("name", TRUTHS)
def test_what_was_calibrated_predicts_agents_that_it_was_not_fitted_to(name: str) -> None:
    truth = on(with_values(H100, {**TRUTHS[name], "front_end_overhead_s": 1e-9}, "the truth"))
    fit = fitted(measured_in_virtual_time(truth, front_end=False))
    sessions = agents(num_agents=4, num_turns=5, seed=3, words_seed=3)

    async def live() -> tuple[list[list[Timed]], list[list[list[int]]]]:
        async with (
            emulated_engine(truth, front_end=False) as app,
            ChatClient(SERVER, StreamingAsgiTransport(app)) as client,
            httpx2.AsyncClient(
                base_url="http://engine:8000", transport=StreamingAsgiTransport(app)
            ) as http,
        ):
            prompts = await tokenised(http, MODEL, sessions)
            return await run_live(client, sessions), prompts

    measured, prompts = in_virtual_time(live)
    predicted = run_emulated(on(fit.chip), LIMITS, sessions, prompts)
    for one, other in zip(chain(*measured), chain(*predicted), strict=True):
        assert other.num_cached_tokens == one.num_cached_tokens
        assert other.ttft_s == pytest.approx(one.ttft_s, rel=0.02)
        assert other.e2e_s == pytest.approx(one.e2e_s, rel=0.02)


def test_a_measurement_ends_when_its_time_is_over_and_keeps_what_it_saw() -> None:
    design = dataclasses.replace(DESIGN, max_rounds=100)
    outcome = measured_in_virtual_time(on(H100), design, front_end=False, minutes=0.5)
    assert np.abs(fitted(outcome).errors()).max() < 0.02
    with pytest.raises(BackendError, match="allow more with --minutes"):
        measured_in_virtual_time(on(H100), design, front_end=False, minutes=0.001)


def test_an_engine_that_refuses_long_prompts_is_measured_with_shorter_ones() -> None:
    small = dataclasses.replace(on(H100), kv_blocks=3000 // BLOCK)
    design = dataclasses.replace(DESIGN, budget_tokens=BUDGET, longest_tokens=4000, kv_tokens=2600)
    outcome = measured_in_virtual_time(small, design, front_end=False)
    assert outcome.measurement.refused_tokens == 4000
    assert np.abs(fitted(outcome).errors()).max() < 0.02


def test_an_engine_with_hardly_any_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="prompts of 100 tokens are too short"):
        dataclasses.replace(DESIGN, longest_tokens=100).probes()


# Over real sockets.

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def calibrate(url: str, out: Path, *more: str) -> int:
    """Run the command beside the servers of this test."""
    argv = ["calibrate", "--engine", url, "--chip", "h100", "--out", str(out), *more]
    return await anyio.to_thread.run_sync(main, argv)  # noqa: TID251 - the command has its own loop


QUICK = ("--catalog-model", MODEL, "--minutes", "0.05", "--max-num-batched-tokens", "8192")


async def test_the_command_writes_an_overlay_that_other_commands_take(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "mine.toml"
    engine = LookalikeEngine(num_blocks=20_000)
    engine.faults.token_s = 0.0005
    async with running_engine(engine) as running:
        config = ("hidden_size=512", "num_hidden_layers=8", "num_attention_heads=4", "head_dim=32")
        more = ("intermediate_size=1536", "vocab_size=4096", "max_position_embeddings=32768")
        sizes = [part for size in (*config, *more) for part in ("--model-size", size)]
        assert await calibrate(running.url, out, *sizes, *QUICK[2:]) == 0
    said = capsys.readouterr().out
    assert "repetitions" in said
    assert "--rack measured-h100 --model lookalike --tp 1" in said
    catalog = CATALOG.with_file(out.read_text(), file="mine.toml")
    chip = catalog.chip("measured-h100")
    assert chip.step_overhead_s.source.startswith(f"measured on {running.url}, 20")
    assert chip.link_bytes_per_s.trust is Trust.INFERRED, "that is still the H100's"
    deployment = plan_deployment(
        catalog.rack("measured-h100"),
        chip,
        catalog.model("lookalike"),
        DeploymentRequest(precision=Precision.BF16, tp=1, block_size_tokens=4),
    )
    assert deployment.kv_blocks == 20_000 - 1, "one is the null block"
    assert main(["rack", "--catalog", str(out), "--chip", "measured-h100"]) == 0


def dies(engine: LookalikeEngine) -> None:
    left = iter(range(6))
    engine.faults.die_after_tokens = 3
    engine.dies = lambda: next(left, None) is None


def refuses(engine: LookalikeEngine) -> None:
    engine.faults.status = 400


def is_overloaded(engine: LookalikeEngine) -> None:
    engine.faults.status = 503


@pytest.mark.parametrize(
    ("fault", "more", "message"),
    [
        (dies, QUICK, "failed: "),
        (refuses, QUICK, "the server answered 400: "),
        (is_overloaded, QUICK, "the server answered 503: "),
        (None, ("--model", "gpt-9"), "--model gpt-9: the engine does not serve it; it serves look"),
        (None, (), "the catalog has no model 'lookalike': say which it is with --catalog-model"),
        (None, ("--model-size", "hidden_size"), "expected KEY=VALUE, with a ="),
        (None, ("--model-size", "hidden_size=5"), "num_hidden_layers: expected a whole number"),
        (None, ("--model-config", "/nowhere"), "--model-config /nowhere: can't read"),
    ],
)
async def test_a_bad_engine_gives_a_clear_error_and_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    fault: Callable[[LookalikeEngine], None] | None,
    more: tuple[str, ...],
    message: str,
) -> None:
    engine = LookalikeEngine(num_blocks=20_000)
    if fault is not None:
        fault(engine)
    async with running_engine(engine) as running:
        assert await calibrate(running.url, tmp_path / "mine.toml", *more) in {1, 2}
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_an_engine_that_is_not_there_is_said_to_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    out = tmp_path / "mine.toml"
    for url, code, message in (
        (f"http://127.0.0.1:{port}", 1, "the server http://127.0.0.1:"),
        ("gpu7", 2, "--engine: expected http://HOST:PORT, got 'gpu7'"),
    ):
        assert main(["calibrate", "--engine", url, "--chip", "h100", "--out", str(out)]) == code
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("num_calls", "writes"), [(1, False), (60, True)])
async def test_an_interrupt_gives_what_can_be_fitted_so_far_or_nothing(
    tmp_path: Path, *, num_calls: int, writes: bool
) -> None:
    out = tmp_path / "mine.toml"
    engine = LookalikeEngine(num_blocks=20_000)
    engine.faults.token_s = 0.001
    argv = ["calibrate", "--chip", "h100", "--out", str(out), *QUICK[:2], *QUICK[4:]]
    async with running_engine(engine) as running:
        command = [sys.executable, "-m", "agent_runtime.cli.main", *argv, "--engine", running.url]
        async with await anyio.open_process(command, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            while len(engine.asked) < num_calls:
                await anyio.sleep(0.005)
            process.send_signal(signal.SIGINT)
            said = b"".join([part async for part in process.stdout]).decode()
            assert await process.wait() == 130, said
    assert ("fitted to what was measured so far" in said) == writes
    assert ("nothing was written" in said) != writes
    assert os.listdir(tmp_path) == (["mine.toml"] if writes else [])


async def test_tokens_that_no_usage_counts_are_counted_by_their_text() -> None:
    engine = LookalikeEngine()
    async with (
        running_engine(engine) as running,
        ChatClient(ChatServer(f"{running.url}/v1", "lookalike")) as client,
    ):
        reply = await timed_reply(client, [{"role": "user", "content": "a b c d"}], 7)
    assert len(reply.token_times_s) == 7
    assert reply.num_prompt_tokens == 6
    assert 0 < reply.ttft_s <= reply.e2e_s


def test_specs_survive_their_files() -> None:
    chip = with_values(H100, {"gemm_efficiency": 0.1, "kv_read_efficiency": 0.2}, "a test")
    chip = chip.model_copy(update={"name": "mine", "title": 'My "H100"'})
    rack = CATALOG.rack("h100-node8").model_copy(update={"name": "rack", "chip": "mine"})
    models = [model.model_copy(update={"name": f"my-{n}"}) for n, model in CATALOG.models.items()]
    text = "\n".join([chip_like_toml(chip, H100), rack_toml(rack), *map(model_toml, models)])
    again = CATALOG.with_file(text, file="f.toml")
    assert again.chip("mine").kv_read_efficiency == chip.kv_read_efficiency
    assert again.chip("mine").hbm_bytes.value == H100.hbm_bytes.value
    assert again.rack("rack") == rack
    assert all(again.model(model.name) == model for model in models)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    write_whole(str(out), "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(str(out), "new \ud800")
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]
