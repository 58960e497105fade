"""What the endpoint takes on, and whose keys it takes."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from agent_runtime.cli.graceful_stop import DRAIN_S
from agent_runtime.cli.rack_options import natural_float, positive_float, positive_int
from agent_runtime.errors import ConfigError
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.gateway.journal.gateway_journal import GatewayJournal
from agent_runtime.gateway.tenants import TenantKeys, read_tenant_keys
from agent_runtime.gateway.turn_stream import HoldTerms
from agent_runtime.records import open_records

MAX_WAIT_S = 30.0
"""Programs in this process wait for as long as it takes; clients over HTTP have time-outs."""


def add_endpoint_options(group: argparse._ArgumentGroup) -> None:
    """Add whose keys are taken, the limits, and how long it takes to stop."""
    _add_tenants(group)
    _add_limits(group)
    group.add_argument(
        "--journal",
        metavar="PLACE",
        help="what outlives a restart, kept answers and what was told of sessions: a FILE, or a "
        "Redis that several gateways share, redis://HOST:6379/0 (pip install 'panjiu[redis]'); "
        "without it a restart forgets them",
    )
    _add_drain(group)


def _add_tenants(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help='TOML: [tenants], then a line such as team = ["KEY", ...] each; without it everybody '
        "is let in, as one tenant",
    )
    group.add_argument(
        "--share-kv",
        action="store_true",
        help="let tenants find each other's KV of equal prompts: faster, but by the clock they can "
        "tell what others asked",
    )


def _add_limits(group: argparse._ArgumentGroup) -> None:
    limits = EndpointLimits()
    group.add_argument(
        "--max-requests",
        type=positive_int,
        default=limits.max_under_way,
        metavar="N",
        help="answered at a time; more get a 429 (default: %(default)s)",
    )
    group.add_argument(
        "--max-wait",
        type=positive_float,
        default=MAX_WAIT_S,
        metavar="S",
        help="a new session that would wait for longer gets a 429 that says when to come back; "
        "those under way wait (default: %(default)s)",
    )
    group.add_argument(
        "--hold-grace",
        type=natural_float,
        default=limits.hold.grace_s,
        metavar="S",
        help="seconds that a held turn's stream waits before it begins; until then errors are HTTP "
        "statuses (default: %(default)s)",
    )


def _add_drain(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--drain-s",
        type=natural_float,
        default=DRAIN_S,
        metavar="S",
        help="told to stop (SIGTERM, Ctrl-C), it begins nothing new and waits for turns under way "
        "for so long; a second signal ends them at once (default: %(default)s)",
    )


def endpoint_limits(args: argparse.Namespace) -> EndpointLimits:
    """Return what the options say the endpoint takes on."""
    return EndpointLimits(
        max_under_way=args.max_requests,
        max_wait_s=args.max_wait,
        hold=HoldTerms(grace_s=args.hold_grace),
    )


@asynccontextmanager
async def opened_journal(
    args: argparse.Namespace, notice: Callable[[str], None]
) -> AsyncIterator[GatewayJournal | None]:
    """Open the journal that the options name; None where they name none.

    Args:
        args: The options.
        notice: Told of what is wrong with it.

    Raises:
        ConfigError: A place that can't be one.
        JournalError: It can't be opened.
    """
    if args.journal is None:
        yield None
        return
    async with open_records(args.journal, notice) as records:
        yield GatewayJournal(records)


def tenant_keys(args: argparse.Namespace) -> TenantKeys | None:
    """Return whose keys are taken, None for everybody.

    Raises:
        ConfigError: The file can't be read as one, or there is none to share by.
    """
    if args.api_key_file is None:
        if args.share_kv:
            raise ConfigError("--share-kv: without --api-key-file there is one tenant alone")
        return None
    return read_tenant_keys(args.api_key_file, share_kv=args.share_kv)
