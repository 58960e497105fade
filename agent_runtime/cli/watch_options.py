"""How the endpoint is watched: its dashboard, and traces of its turns."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from starlette.types import ASGIApp

from agent_runtime.errors import ConfigError
from agent_runtime.gateway.dashboard import DashboardTerms
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.gateway.turn_tracing import TracedTurns
from agent_runtime.gateway.view_access import (
    HOW_TO_SET,
    KEY_OPTION,
    KEY_VARIABLE,
    read_dashboard_key,
)


def add_watch_options(group: argparse._ArgumentGroup) -> None:
    """Add ``--otel``, ``--no-dashboard`` and the dashboard's key."""
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
