"""A simulation from its inputs to its ``RunDetail``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent_runtime.measurement.run_detail import RunRecord, run_detail
from agent_runtime.measurement.summary import RunDetail, RunLabels, SessionCounts
from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.workload.session_script import Workload
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore
from scheduler.decision import Decision


def simulate(  # noqa: PLR0913 - a run, and who looks on, by name
    workload: Workload,
    deployment: Deployment,
    options: SimulationOptions,
    *,
    stopwatch: Callable[[], float],
    on_turn: Callable[[int], None] | None = None,
    on_decision: Callable[[Decision], None] | None = None,
    on_engines: Callable[[Sequence[EngineCore]], None] | None = None,
) -> RunDetail:
    """Run ``workload`` on ``deployment`` and measure it.

    Args:
        workload: The sessions.
        deployment: What serves them; laid out for ``options.band``.
        options: Band, policy, seed and limits.
        stopwatch: Wall seconds from any origin; only ``wall_s`` and ``turns_per_wall_s`` use it.
        on_turn: Called after every turn with the number of turns ended so far.
        on_decision: Told of every decision of the scheduler.
        on_engines: Given the engines, one a replica, before they run.

    Returns:
        The same detail for the same inputs, but for those two.
    """
    began_s = stopwatch()
    simulation = RackSimulation(workload, deployment, options, on_decision=on_decision)
    if on_engines is not None:
        on_engines(simulation.engines)
    simulation.run(on_turn)
    wall_s = stopwatch() - began_s
    return run_detail(_record(simulation, workload, deployment, options), wall_s)


def _record(
    simulation: RackSimulation,
    workload: Workload,
    deployment: Deployment,
    options: SimulationOptions,
) -> RunRecord:
    trained = deployment.model.trained_context_tokens
    return RunRecord(
        labels=RunLabels(
            policy=options.policy,
            band=options.band.value,
            seed=options.seed,
            ttft_boundary=options.ttft_boundary.value,
        ),
        deployment=deployment,
        engines=simulation.engines,
        log=simulation.log,
        timeline=simulation.sampler.timeline(),
        num_turns_by_replica=simulation.num_turns_by_replica,
        ended_s=simulation.now_s,
        sessions=SessionCounts(
            total=len(workload.sessions),
            completed=len(simulation.log.jct_s),
            failed=simulation.num_failed_sessions,
        ),
        refused_tokens=[refusal.num_tokens for _, refusal in simulation.refused],
        num_sessions_beyond_trained=sum(
            script.peak_context_tokens() > trained for script in workload.sessions
        ),
    )
