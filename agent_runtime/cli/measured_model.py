"""Which model an engine runs: one of the catalog, or one that the options describe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from agent_runtime.errors import ConfigError
from hw_model.catalog import Catalog
from hw_model.model_config import model_from_config
from hw_model.specs import ModelSpec


def add_measured_model_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that ``measured_model`` reads."""
    group.add_argument(
        "--model",
        metavar="NAME",
        help="as the engine calls it (default: the one that it serves)",
    )
    group.add_argument(
        "--catalog-model",
        metavar="NAME",
        help="as the catalog calls it, where the engine calls it otherwise",
    )
    group.add_argument(
        "--model-config",
        metavar="DIR",
        help="with its config.json, for a model that the catalog lacks",
    )
    group.add_argument(
        "--model-size",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of config.json, on top of it or instead, e.g. num_hidden_layers=36",
    )


def measured_model(
    args: argparse.Namespace, catalog: Catalog, served_as: str
) -> tuple[ModelSpec, bool]:
    """Return the model, and whether the catalog lacks it.

    Raises:
        ConfigError: A model that is not known and not described, or wrongly so.
    """
    name = args.catalog_model or served_as.rstrip("/").rsplit("/", 1)[-1].lower()
    if args.model_config is None and not args.model_size:
        if name not in catalog.models:
            raise ConfigError(
                f"the catalog has no model {name!r}: say which it is with --catalog-model, or what "
                "it is with --model-config DIR (with a config.json) or --model-size KEY=VALUE"
            )
        return catalog.model(name), False
    config = {} if args.model_config is None else _config(args.model_config)
    config.update(_size(text) for text in args.model_size)
    source = "--model-size" if args.model_config is None else f"{args.model_config}/config.json"
    return model_from_config(config, name=name, source=source), True


def _config(directory: str) -> dict[str, Any]:
    path = Path(directory) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--model-config {directory}: can't read {path}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"--model-config {directory}: {path} is no JSON object")
    return config


def _size(text: str) -> tuple[str, Any]:
    key, mark, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError as error:
        what = "KEY=VALUE" if mark else "KEY=VALUE, with a ="
        raise ConfigError(f"--model-size {text}: expected {what}: {error}") from error
