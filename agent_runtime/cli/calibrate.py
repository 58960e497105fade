"""``panjiu calibrate``: fit a chip to what was measured on it, as an overlay for ``--catalog``."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent_runtime.cli.calibrate_benchmarks import calibrate_from_benchmarks
from agent_runtime.cli.calibrate_engine import add_engine_measurement_options, calibrate_engine
from agent_runtime.cli.catalog_option import add_catalog_option
from agent_runtime.errors import ConfigError

DESCRIPTION = """\
Fit a chip's efficiencies and overheads to a running engine (--engine), which is measured for some
minutes, or to closed-loop benchmarks (--from). Peaks and sizes stay as they are. Writes the chip
with the fitted numbers as a file for --catalog."""

EXAMPLES = """\
the CSV of --from has a row a benchmark (spread is 0 when lengths are equal):
  model,precision,tp,isl,osl,concurrency,ttft_s,tpot_s,spread
  qwen3-32b,bf16,2,4096,512,16,0.893,0.0246,0

examples:
  panjiu calibrate --engine http://gpu7:8000 --chip h100 --tp 2 --precision fp8 --out gpu7.toml
  panjiu simulate --catalog gpu7.toml --rack measured-h100 --model qwen3-32b --precision fp8
  panjiu calibrate --from measured.csv --chip h100 --out my-h100.toml
  panjiu simulate --catalog my-h100.toml --rack h100-node8 --model qwen3-32b
"""


def add_calibrate_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "calibrate",
        help="fit a chip to measurements of your own",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--from", dest="source", metavar="CSV", help="measurements")
    what.add_argument(
        "--engine", metavar="URL", help="http://HOST:PORT of an idle OpenAI-compatible server"
    )
    parser.add_argument("--chip", required=True, metavar="NAME", help="where the fit starts")
    parser.add_argument("--out", metavar="TOML", help="write the fitted chip; else it is printed")
    add_catalog_option(parser)
    add_engine_measurement_options(parser)
    parser.set_defaults(run=run_calibrate)


def run_calibrate(args: argparse.Namespace) -> int:
    """Carry out the command; return its exit code."""
    if args.out is not None and not Path(args.out).absolute().parent.is_dir():
        raise ConfigError(f"--out {args.out}: not a file in an existing directory")
    return calibrate_engine(args) if args.engine else calibrate_from_benchmarks(args)
