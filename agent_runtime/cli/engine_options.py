"""The options of ``panjiu serve`` that name real engines."""

from __future__ import annotations

import argparse
import os
import shlex

from agent_runtime.backends.vllm_engine.in_process_http import IN_PROCESS_URL
from agent_runtime.backends.vllm_servers.engine_discovery import EngineSources, engine_url
from agent_runtime.cli.rack_options import positive_float, positive_int
from agent_runtime.errors import ConfigError

KEY_VARIABLE = "PANJIU_ENGINE_API_KEY"


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--engine`` and what goes with it."""
    group = parser.add_argument_group(
        "real engines",
        "vLLM servers in place of the emulated rack; of its options, --policy and --seed still "
        "count, and --rack with --model say what hardware they run on.",
    )
    group.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="URL",
        help=f"http://HOST:PORT of a vLLM server; may be given again. Their key, if any, is in "
        f"{KEY_VARIABLE}",
    )
    group.add_argument(
        "--engines-file",
        metavar="FILE",
        help="a URL a line, or TOML: [[engine]] with url and, if wanted, drain = true; read again "
        "when it changes",
    )
    group.add_argument(
        "--engines-dns",
        action="append",
        default=[],
        metavar="NAME:PORT",
        help="every address that NAME resolves to; asked again every 2 s",
    )
    group.add_argument(
        "--in-process",
        metavar="'MODEL ARGS'",
        help="vLLM in this process, with the arguments of 'vllm serve' in one word; beside "
        "--engine or alone (pip install 'panjiu[vllm]')",
    )
    _add_terms(group)


def _add_terms(group: argparse._ArgumentGroup) -> None:
    """Add what is said of engines wherever they are named."""
    group.add_argument(
        "--max-engines",
        type=positive_int,
        metavar="N",
        help="room for so many at a time (default: twice those named, at least 8)",
    )
    group.add_argument(
        "--kv-tokens",
        type=positive_int,
        metavar="N",
        help="what one engine's KV holds, where it doesn't say at /metrics",
    )
    group.add_argument(
        "--wait-s",
        type=positive_float,
        default=600.0,
        metavar="S",
        help="for the first engine to come up (default: %(default)s)",
    )
    group.add_argument(
        "--known-hardware",
        action="store_true",
        help="price work by --rack, --model and --tp instead of learning it from the turns",
    )


def names_engines(args: argparse.Namespace) -> bool:
    """Return whether real engines are to be served."""
    return bool(args.engine or args.engines_file or args.engines_dns or args.in_process)


def engine_sources(args: argparse.Namespace) -> EngineSources:
    """Read where engines are named.

    Raises:
        ConfigError: An option that can't be read, or goes with the emulated rack only.
    """
    for option in ("paced", "replies"):
        if getattr(args, option, None) is not None:
            raise ConfigError(f"--{option} is of the emulated rack; leave it out with --engine")
    if args.speed != 1.0:
        raise ConfigError("--speed is of the emulated rack; real engines run in real time")
    for url in args.engine:
        engine_url(url, "--engine")
    names = [_dns_name(text) for text in args.engines_dns]
    urls = [*args.engine, *([IN_PROCESS_URL] if args.in_process else [])]
    return EngineSources(tuple(urls), args.engines_file, tuple(names))


def num_slots(args: argparse.Namespace) -> int:
    """Return how many engines there is room for."""
    return args.max_engines or max(8, 2 * len(args.engine))


def engine_key() -> str | None:
    """Return the engines' key, if there is one."""
    return os.environ.get(KEY_VARIABLE)


def in_process_arguments(args: argparse.Namespace) -> list[str]:
    """Return what the engine in this process is started with; nothing for none.

    Raises:
        ConfigError: Quotes that don't close.
    """
    try:
        return shlex.split(args.in_process or "")
    except ValueError as error:
        raise ConfigError(f"--in-process {args.in_process!r}: {error}") from error


def _dns_name(text: str) -> tuple[str, int]:
    name, _, port = text.rpartition(":")
    if not name or not port.isdecimal():
        raise ConfigError(f"--engines-dns: expected NAME:PORT, got {text!r}")
    return name, int(port)
