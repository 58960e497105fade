"""The emulated rack that these benchmarks talk to."""

from __future__ import annotations

from agent_runtime.clock import Clock
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.simulation.virtual_clock import VirtualClock
from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import DeploymentRequest, plan_deployment
from hw_model.engine.step_scheduler import EngineLimits


def emulated_service(clock: VirtualClock) -> EmulatedService:
    """Return the whole rack with Qwen3-235B, idle, in the world of ``clock``."""
    catalog = Catalog.packaged()
    rack = catalog.rack("panjiu-al128")
    deployment = plan_deployment(
        rack,
        catalog.chip(rack.chip),
        catalog.model("qwen3-235b-a22b"),
        DeploymentRequest(block_size_tokens=64),
    )
    options = ServiceOptions(Band.BASE, "panjiu", EngineLimits(), any_model_name=True)
    return EmulatedService(
        deployment, options, Clock(origin_s=0.0), SeededModel(), epoch_s=lambda: clock.now_s
    )
