"""A live run on the emulated rack, measured from its first turn to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent_runtime.measurement.run_detail import RunRecord, run_detail
from agent_runtime.measurement.summary import RunDetail, RunLabels
from agent_runtime.measurement.timeline_sampler import TimelineSampler
from agent_runtime.measurement.turn_meter import TurnMeter
from agent_runtime.turns import TurnProgress, TurnRequest
from hw_model.deployment import Deployment
from hw_model.engine.engine_core import EngineCore
from scheduler.ids import ReplicaId, TurnId


class LiveRun:
    """A ``TurnObserver`` that meters turns and samples the rack whenever one comes or goes.

    Args:
        labels: What is run.
        deployment: What serves it.
        engines: One a replica.
        meter: Of the turns.
    """

    def __init__(
        self,
        labels: RunLabels,
        deployment: Deployment,
        engines: Sequence[EngineCore],
        meter: TurnMeter,
    ) -> None:
        self.meter = meter
        self._labels = labels
        self._deployment = deployment
        self._engines = engines
        self._sampler = TimelineSampler()

    def turn_dispatched(self, request: TurnRequest, replica_id: ReplicaId, sent_s: float) -> None:
        """Pass it on to the meter."""
        self.meter.turn_dispatched(request, replica_id, sent_s)

    def turn_refused(self, request: TurnRequest, num_tokens: int, sent_s: float) -> None:
        """Pass it on to the meter."""
        self.meter.turn_refused(request, num_tokens, sent_s)

    def turn_progressed(self, turn_id: TurnId, progress: TurnProgress, now_s: float) -> None:
        """Pass it on to the meter."""
        self.meter.turn_progressed(turn_id, progress, now_s)
        self._sample(now_s)

    def turn_ended(
        self, turn_id: TurnId, now_s: float, *, num_output_tokens: int, finished: bool
    ) -> None:
        """Pass it on to the meter."""
        self.meter.turn_ended(
            turn_id, now_s, num_output_tokens=num_output_tokens, finished=finished
        )
        self._sample(now_s)

    def detail(self, ended_s: float, wall_s: float) -> RunDetail:
        """End the run; return what it was.

        Args:
            ended_s: When, in emulated seconds.
            wall_s: How long it took on this machine.
        """
        for engine in self._engines:
            engine.settle(ended_s)
        log, sessions = self.meter.close()
        timeline = self._sampler.timeline()
        live = self.meter.live_sessions(timeline.time_s)
        record = RunRecord(
            labels=self._labels,
            deployment=self._deployment,
            engines=self._engines,
            log=log,
            timeline=replace(timeline, live_sessions=live),
            num_turns_by_replica=self.meter.num_turns_by_replica,
            ended_s=ended_s,
            sessions=sessions,
            refused_tokens=self.meter.refused_tokens,
            num_sessions_beyond_trained=self.meter.sessions_beyond(
                self._deployment.model.trained_context_tokens
            ),
        )
        detail = run_detail(record, wall_s)
        aborted = self.meter.num_aborted_turns
        if aborted:
            note = f"aborted turns, whose client left before the end: {aborted:,}."
            return replace(detail, notes=(*detail.notes, note))
        return detail

    def _sample(self, now_s: float) -> None:
        if now_s >= self._sampler.next_s:
            engines, num = self._engines, len(self._engines)
            used = sum(engine.kv_used_ratio for engine in engines) / num
            active = sum(engine.kv_active_ratio for engine in engines) / num
            running = float(self.meter.num_running_turns)
            self._sampler.record(now_s, (used, active, running, 0.0))
