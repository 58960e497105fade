"""``--catalog PATH``: a user's own chips, racks and models."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent_runtime.errors import ConfigError
from hw_model.catalog import Catalog


def add_catalog_option(group: argparse._ActionsContainer) -> None:
    """Add the option that ``chosen_catalog`` reads."""
    group.add_argument(
        "--catalog",
        metavar="PATH",
        help="a TOML file with chips, racks or models of your own (docs/hardware.md)",
    )


def chosen_catalog(args: argparse.Namespace) -> Catalog:
    """Return the packaged facts with the user's file, if any, on top.

    Raises:
        ConfigError: The file can't be read.
        CatalogError: The file is not a catalog; names the key.
    """
    catalog = Catalog.packaged()
    if args.catalog is None:
        return catalog
    try:
        text = Path(args.catalog).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--catalog {args.catalog}: can't read it: {error}") from error
    return catalog.with_file(text, file=args.catalog)
