"""``panjiu calibrate``: fit a chip to what was measured on it, as an overlay for ``--catalog``."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent_runtime.cli.catalog_option import add_catalog_option, chosen_catalog
from agent_runtime.errors import ConfigError, TraceError
from hw_model.calibration import FITTED, Fit, Measurement, fit_chip
from hw_model.catalog import Catalog
from hw_model.claim import Claim
from hw_model.specs import ChipSpec, Precision

DESCRIPTION = """\
Fit a chip's efficiencies and overheads to closed-loop benchmarks measured on it. Peaks and sizes
stay as they are. Writes the chip with the fitted numbers as a file for --catalog."""

EXAMPLES = """\
the file is CSV, a row a benchmark, with these columns (spread is 0 when lengths are equal):
  model,precision,tp,isl,osl,concurrency,ttft_s,tpot_s,spread
  qwen3-32b,bf16,2,4096,512,16,0.893,0.0246,0

examples:
  panjiu calibrate --from measured.csv --chip h100 --out my-h100.toml
  panjiu simulate --catalog my-h100.toml --rack h100-node8 --model qwen3-32b
"""

Count = Annotated[int, Field(ge=1, le=10**7)]
Positive = Annotated[float, Field(gt=0, le=1e6)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str
    precision: Precision
    tp: Count
    isl: Count
    osl: Count
    concurrency: Count
    ttft_s: Positive
    tpot_s: Positive
    spread: Annotated[float, Field(ge=0, lt=1)] = 0.0


def add_calibrate_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "calibrate",
        help="fit a chip to measurements of your own",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", dest="source", required=True, metavar="CSV", help="measurements")
    parser.add_argument("--chip", required=True, metavar="NAME", help="where the fit starts")
    parser.add_argument("--out", metavar="TOML", help="write the fitted chip; else it is printed")
    add_catalog_option(parser)
    parser.set_defaults(run=run_calibrate)


def run_calibrate(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    if args.out is not None and not Path(args.out).absolute().parent.is_dir():
        raise ConfigError(f"--out {args.out}: not a file in an existing directory")
    catalog = chosen_catalog(args)
    chip = catalog.chip(args.chip)
    measurements = read_measurements(args.source, catalog)
    columns = (TextColumn("fitting, {task.completed} sets of numbers tried"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        fit = fit_chip(
            chip,
            measurements,
            source=f"fitted to {len(measurements)} benchmarks of {Path(args.source).name}",
            on_try=lambda: progress.advance(task),
        )
    console = Console(stderr=args.out is None)
    console.print(_numbers_table(chip, fit.chip))
    console.print(_error_table(fit))
    text = chip_toml(fit.chip)
    if args.out is None:
        print(text, end="")
    else:
        Path(args.out).write_text(text, encoding="utf-8")
        console.print(f"wrote {args.out}; use it with --catalog {args.out}", highlight=False)
    return 0


def read_measurements(source: str, catalog: Catalog) -> list[Measurement]:
    """Read a CSV of benchmarks.

    Raises:
        TraceError: The file can't be read, or a row is not a benchmark; names line and column.
        UnknownNameError: A model that is not in the catalog.
    """
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"can't read it: {error}", path=source) from error
    measurements = []
    for number, cells in enumerate(csv.DictReader(lines), start=2):
        try:
            row = _Row.model_validate({key: cell for key, cell in cells.items() if cell})
        except ValidationError as error:
            first = error.errors()[0]
            column = ".".join(str(part) for part in first["loc"])
            raise TraceError(first["msg"], path=source, line=number, field=column) from error
        measurements.append(
            Measurement(
                model=catalog.model(row.model),
                precision=row.precision,
                tp=row.tp,
                isl_tokens=row.isl,
                osl_tokens=row.osl,
                concurrency=row.concurrency,
                ttft_s=row.ttft_s,
                tpot_s=row.tpot_s,
                spread=row.spread,
            )
        )
    return measurements


def chip_toml(chip: ChipSpec) -> str:
    """Return a chip as a file for ``--catalog``."""
    lines = [f"[chips.{json.dumps(chip.name)}]", f"title = {json.dumps(chip.title)}"]
    for field, claim in chip.claims().items():
        lines += ["", f"[chips.{json.dumps(chip.name)}.{field}]", *_claim_toml(claim)]
    return "\n".join(lines) + "\n"


def _claim_toml(claim: Claim) -> list[str]:
    values = {"value": claim.value, "low": claim.low, "high": claim.high}
    numbers = [f"{key} = {value!r}" for key, value in values.items() if value is not None]
    return [*numbers, f"source = {json.dumps(claim.source)}", f'trust = "{claim.trust.value}"']


def _numbers_table(before: ChipSpec, after: ChipSpec) -> Table:
    table = Table("number", "before", "fitted")
    for field in FITTED:
        old, new = before.claims()[field].value, after.claims()[field].value
        table.add_row(field, f"{old:.3g}", f"{new:.3g}")
    return table


def _error_table(fit: Fit) -> Table:
    table = Table("|error| of the prediction", "before: median", "mean", "fitted: median", "mean")
    for index, name in enumerate(("TTFT", "TPOT")):
        cells = []
        for ratios in (fit.before, fit.after):
            errors = np.abs(np.array(ratios)[:, index] - 1)
            cells += [f"{np.median(errors):.1%}", f"{errors.mean():.1%}"]
        table.add_row(name, *cells)
    return table
