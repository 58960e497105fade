"""``panjiu calibrate --from CSV``: fits a chip to closed-loop benchmarks measured on it."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent_runtime.cli.catalog_option import chosen_catalog
from agent_runtime.cli.catalog_toml import chip_toml, write_whole
from agent_runtime.errors import TraceError
from hw_model.calibration import FITTED, Fit, Measurement, fit_chip
from hw_model.catalog import Catalog
from hw_model.specs import ChipSpec, Precision

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


def calibrate_from_benchmarks(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
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
        write_whole(args.out, text)
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
