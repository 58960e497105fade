"""The dashboard of a service: the view of its rack, and the routes to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent_runtime.clock import Clock
from agent_runtime.gateway.tenants import TenantKeys
from agent_runtime.gateway.view_access import ViewAccess
from agent_runtime.gateway.view_routes import ViewEnd, ViewRoutes
from agent_runtime.rack_view.gauges import ReplicaGauges
from agent_runtime.rack_view.live_view import RackView
from agent_runtime.rack_view.messages import Layout


@dataclass(frozen=True, slots=True)
class DashboardTerms:
    """Who may see it.

    Attributes:
        key: That opens it; None where none is set.
    """

    key: str | None = field(default=None, repr=False)


def open_dashboard(
    terms: DashboardTerms,
    layout: Callable[[], Layout],
    gauges: ReplicaGauges,
    clock: Clock,
    tenants: TenantKeys | None,
) -> ViewRoutes:
    """Return the routes of a rack; its scheduler's decisions go to their ``view``.

    Args:
        terms: Who may see it.
        layout: Returns what is watched, as it is now.
        gauges: Of the replicas.
        clock: The runtime's.
        tenants: Whose keys the endpoint takes.
    """
    view = RackView(layout, gauges, clock.now_s, clock.speed)
    return ViewRoutes(view, ViewAccess(terms.key, tenants), ViewEnd())
