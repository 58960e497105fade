"""Fitting a chip to measurements: it finds what made them, and says what it can't read."""

import dataclasses
import statistics
from pathlib import Path

import pytest

from agent_runtime.cli.catalog_toml import chip_toml
from agent_runtime.cli.main import main
from hw_model.calibration import Measurement, fit_chip, predict
from hw_model.engine.closed_loop import ClosedLoopLoad, run_closed_loop
from hw_model.errors import ConfigError
from hw_model.specs import ChipSpec, Precision
from tests.engines import CATALOG, engine

H100 = CATALOG.chip("h100")
LOADS = [(512, 64, 1), (2048, 64, 4), (2048, 32, 16), (128, 128, 8)]


def with_value(chip: ChipSpec, field: str, value: float) -> ChipSpec:
    claim = chip.claims()[field]
    return chip.model_copy(update={field: claim.model_copy(update={"value": value})})


def measured_on(chip: ChipSpec) -> list[Measurement]:
    measurements = []
    for isl, osl, concurrency in LOADS:
        asked = Measurement(
            CATALOG.model("qwen3-8b"), Precision.BF16, 1, isl, osl, concurrency, 1.0, 1.0, 0.2
        )
        seen = predict(chip, asked)
        measurements.append(dataclasses.replace(asked, ttft_s=seen.ttft_s, tpot_s=seen.tpot_s))
    return measurements


SLOW = with_value(with_value(H100, "gemm_efficiency", 0.25), "hbm_efficiency", 0.5)


def test_a_fit_finds_the_machine_that_made_the_measurements() -> None:
    fit = fit_chip(H100, measured_on(SLOW), source="a test")
    assert max(abs(ratio - 1) for pair in fit.before for ratio in pair) > 0.3
    assert statistics.fmean(abs(ratio - 1) for pair in fit.after for ratio in pair) < 0.05
    assert fit.chip.gemm_efficiency.value == pytest.approx(0.25, rel=0.15)
    assert fit.chip.hbm_efficiency.value == pytest.approx(0.5, rel=0.15)
    assert fit.chip.gemm_efficiency.source == "a test"
    assert fit.chip.bf16_flops_per_s == H100.bf16_flops_per_s, "facts stay"
    untouched = fit.chip.expert_gemm_flops_per_s
    assert untouched == H100.expert_gemm_flops_per_s, "a dense model says nothing of experts"


def test_one_measurement_is_too_few() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        fit_chip(H100, measured_on(H100)[:1], source="a test")


def test_a_fitted_chip_survives_its_file() -> None:
    again = CATALOG.with_file(chip_toml(SLOW), file="overlay.toml").chip("h100")
    assert again == SLOW


def test_a_closed_loop_keeps_its_clients_busy_and_leaves_the_engine_idle() -> None:
    core = engine(num_blocks=400)
    load = ClosedLoopLoad(isl_tokens=40, osl_tokens=20, concurrency=3, num_requests=12)
    result = run_closed_loop(core, load)
    assert 0 < result.tpot_s < result.ttft_s
    assert core.next_event_s is None
    lengths = [load.lengths(number) for number in range(100)]
    assert max(lengths) == (40, 20)
    assert min(isl for isl, _ in lengths) >= 32


def write_csv(path: Path, rows: list[Measurement]) -> Path:
    lines = ["model,precision,tp,isl,osl,concurrency,ttft_s,tpot_s,spread"]
    lines += [
        f"{m.model.name},{m.precision},{m.tp},{m.isl_tokens},{m.osl_tokens},{m.concurrency},"
        f"{m.ttft_s},{m.tpot_s},{m.spread}"
        for m in rows
    ]
    path.write_text("\n".join(lines))
    return path


def test_the_command_writes_a_chip_that_other_commands_take(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "measured.csv", measured_on(SLOW)[:2])
    out = tmp_path / "mine.toml"
    assert main(["calibrate", "--from", str(source), "--chip", "h100", "--out", str(out)]) == 0
    assert "use it with --catalog" in capsys.readouterr().out
    assert main(["rack", "--catalog", str(out), "--chip", "h100", "--sources"]) == 0
    assert "measured.csv" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("qwen3-8b,fp3,1,512,64,1,0.1,0.01,0", "line 2: precision: "),
        ("qwen3-8b,bf16,0,512,64,1,0.1,0.01,0", "line 2: tp: "),
        ("qwen3-8b,bf16,1,512,64,1,nan,0.01,0", "line 2: ttft_s: "),
        ("qwen3-8b,bf16,1,512,64,1,,0.01,0", "line 2: ttft_s: Field required"),
        ("gpt-9,bf16,1,512,64,1,0.1,0.01,0", "unknown model 'gpt-9'"),
    ],
)
def test_a_broken_row_is_named_with_its_column(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cells: str, message: str
) -> None:
    source = tmp_path / "measured.csv"
    source.write_text(f"model,precision,tp,isl,osl,concurrency,ttft_s,tpot_s,spread\n{cells}\n")
    assert main(["calibrate", "--from", str(source), "--chip", "h100"]) in {1, 2}
    assert message in capsys.readouterr().err
