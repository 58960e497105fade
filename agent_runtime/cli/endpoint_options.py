"""What the endpoint takes on, and whose keys it takes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from starlette.types import ASGIApp

from agent_runtime.cli.rack_options import natural_float, positive_float, positive_int
from agent_runtime.errors import ConfigError
from agent_runtime.gateway.app import EndpointLimits
from agent_runtime.gateway.dashboard import DashboardTerms
from agent_runtime.gateway.tenants import TenantKeys, read_tenant_keys
from agent_runtime.gateway.turn_stream import HoldTerms
from agent_runtime.gateway.turn_tracing import TracedTurns
from agent_runtime.gateway.view_access import (
    HOW_TO_SET,
    KEY_OPTION,
    KEY_VARIABLE,
    read_dashboard_key,
)

MAX_WAIT_S = 30.0
"""Programs in this process wait for as long as it takes; clients over HTTP have time-outs."""


def add_endpoint_options(group: argparse._ArgumentGroup) -> None:
    """Add ``--api-key-file``, the limits and what is said of the dashboard."""
    limits = EndpointLimits()
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
    group.add_argument(
        "--otel",
        action="store_true",
        help="OpenTelemetry spans of turns, in their callers' traces; start it as "
        "'opentelemetry-instrument panjiu serve --otel' (docs/metrics.md)",
    )
    group.add_argument(
        "--no-dashboard",
        action="store_true",
        help="don't show the rack at / (docs/dashboard.md)",
    )
    group.add_argument(
        KEY_OPTION,
        type=Path,
        metavar="FILE",
        help="the key that opens the dashboard, alone in a file; needed where there are API keys. "
        f"{KEY_VARIABLE} does too",
    )


def endpoint_limits(args: argparse.Namespace) -> EndpointLimits:
    """Return what the options say the endpoint takes on."""
    return EndpointLimits(
        max_under_way=args.max_requests,
        max_wait_s=args.max_wait,
        hold=HoldTerms(grace_s=args.hold_grace),
    )


def dashboard_terms(args: argparse.Namespace, tenants: TenantKeys | None) -> DashboardTerms | None:
    """Return who may watch the rack, None if nobody is to.

    Raises:
        ConfigError: The key can't be read, or can't be one.
    """
    if args.no_dashboard:
        if args.dashboard_key_file is not None:
            raise ConfigError(f"{KEY_OPTION}: there is no dashboard; leave out --no-dashboard")
        return None
    variable = os.environ.get(KEY_VARIABLE)
    return DashboardTerms(read_dashboard_key(args.dashboard_key_file, variable, tenants))


def dashboard_line(terms: DashboardTerms | None, tenants: TenantKeys | None, url: str) -> str:
    """Return where the dashboard is, as a line of its own, or nothing.

    Args:
        terms: Who may see it.
        tenants: Whose keys are taken.
        url: Of the server.
    """
    if terms is None:
        return ""
    if terms.key is None and tenants is not None:
        return f"\ndashboard: needs a key of its own, for there are API keys: {HOW_TO_SET}"
    return f"\ndashboard at {url}/"


def traced_app(args: argparse.Namespace, app: ASGIApp) -> ASGIApp:
    """Return the endpoint as it is served: with spans of its turns, if they are asked for.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    return TracedTurns(app) if args.otel else app


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
