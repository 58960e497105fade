"""``panjiu rack`` and ``panjiu models``: what the catalog holds, and how far to trust it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from rich.console import Console

from agent_runtime.cli.catalog_option import add_catalog_option, chosen_catalog
from agent_runtime.cli.hardware_tables import (
    TRUST_LEGEND,
    chips_table,
    claims_table,
    models_table,
    numbers_table,
    rack_heading,
    racks_table,
)
from agent_runtime.report.assumptions import assumptions, claim_rows
from hw_model.catalog import Catalog
from hw_model.public_claims import checked_claims

RACK_EXAMPLES = """\
examples:
  panjiu rack                         the racks and chips there are
  panjiu rack panjiu-al128            one rack, every number with its band and trust
  panjiu rack --chip m890 --sources   one chip likewise, and where each number comes from
  panjiu rack --claims                what is said in public of the M890, checked
  panjiu rack --catalog mine.toml     with chips and racks of your own
"""

MODELS_EXAMPLES = """\
examples:
  panjiu models
  panjiu models --json
  panjiu models --catalog mine.toml   with models of your own
"""


def add_rack_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``rack``."""
    parser = commands.add_parser(
        "rack",
        help="the racks and chips that can be emulated, with sources",
        description="Show racks and chips: every number with its band, source and trust.",
        epilog=RACK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rack", nargs="?", metavar="RACK", help="show this one's numbers")
    parser.add_argument("--chip", metavar="NAME", help="show this chip's numbers")
    parser.add_argument("--sources", action="store_true", help="and where they come from")
    parser.add_argument("--claims", action="store_true", help="check what is said of the M890")
    parser.add_argument("--json", action="store_true", help="for machines")
    add_catalog_option(parser)
    parser.set_defaults(run=run_rack)


def add_models_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``models``."""
    parser = commands.add_parser(
        "models",
        help="the models that can be emulated",
        description="Show the models: size, attention, and what a token keeps in the KV cache.",
        epilog=MODELS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    add_catalog_option(parser)
    parser.set_defaults(run=run_models)


def run_rack(args: argparse.Namespace) -> int:
    """Carry out ``rack``; return its exit code."""
    catalog = chosen_catalog(args)
    if args.claims:
        show = _show_claims
    elif args.chip is not None:
        show = _show_chip
    elif args.rack is not None:
        show = _show_rack
    else:
        show = _show_all
    return show(catalog, args)


def _show_claims(catalog: Catalog, args: argparse.Namespace) -> int:
    claims = checked_claims(catalog)
    if args.json:
        return _print_json([dataclasses.asdict(claim) for claim in claims])
    Console().print(claims_table(claims))
    return 0


def _show_chip(catalog: Catalog, args: argparse.Namespace) -> int:
    chip = catalog.chip(args.chip)
    if args.json:
        return _print_json(chip.model_dump(mode="json"))
    console = Console()
    console.print(f"[bold]{chip.title}[/bold]", highlight=False)
    rows = (row.assumption for row in claim_rows(chip.claims()))
    console.print(numbers_table(rows, sources=args.sources))
    return 0


def _show_rack(catalog: Catalog, args: argparse.Namespace) -> int:
    rack = catalog.rack(args.rack)
    chip = catalog.chip(rack.chip)
    if args.json:
        specs = {"rack": rack.model_dump(mode="json"), "chip": chip.model_dump(mode="json")}
        return _print_json(specs)
    console = Console()
    console.print(f"[bold]{rack_heading(rack, chip)}[/bold]", highlight=False)
    console.print(numbers_table(assumptions(rack, chip), sources=args.sources))
    return 0


def _show_all(catalog: Catalog, args: argparse.Namespace) -> int:
    if args.json:
        racks = [rack.model_dump(mode="json") for rack in catalog.racks.values()]
        chips = [chip.model_dump(mode="json") for chip in catalog.chips.values()]
        return _print_json({"racks": racks, "chips": chips})
    console = Console()
    console.print(racks_table(catalog))
    console.print(chips_table(catalog))
    console.print(f"base (low to high)   {TRUST_LEGEND}", highlight=False)
    return 0


def run_models(args: argparse.Namespace) -> int:
    """Carry out ``models``; return its exit code."""
    catalog = chosen_catalog(args)
    if args.json:
        return _print_json([model.model_dump(mode="json") for model in catalog.models.values()])
    console = Console()
    console.print(models_table(catalog.models.values()))
    assumed = [model for model in catalog.models.values() if model.assumed]
    for model in assumed:
        console.print(f"○ {model.name}: {model.source}", highlight=False)
    return 0


def _print_json(value: object) -> int:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    return 0
