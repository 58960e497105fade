"""What the picture of a rack costs: of a decision, and of a frame.

    python -m benchmarks.rack_view.picture_cost [--sessions 1000] [--replicas 128]

The load is that of benchmarks/scheduler/decision_cost.py. Its decisions go into the picture and the
stories as a server's do, with no receipts in them, and are timed; so is, every half second of that
load, the frame of a viewer who has read the one before, encoded, and at the end the whole frame of
one who comes. Few and many sessions are timed by turns, so that what else the machine does weighs
on both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

from agent_runtime.garbage import rare_garbage_collection
from agent_runtime.rack_view.layouts import emulated_layout
from agent_runtime.rack_view.live_view import RackView
from agent_runtime.rack_view.messages import Health, ReplicaRow
from benchmarks.scheduler.decision_cost import Load
from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import DeploymentRequest, plan_deployment
from scheduler.decision import Decision

FRAME_S = 0.5
CHUNK_TURNS, NUM_CHUNKS = 1_000, 20
WHOLE_FRAMES = 20


class FullRack:
    """Gauges of a rack at work."""

    def __init__(self, num_replicas: int) -> None:
        self._rows = [ReplicaRow(8, 1, 990, 400, int(Health.UP))] * num_replicas

    def read(self) -> Sequence[ReplicaRow]:
        """Return a row a replica."""
        return self._rows


class WatchedLoad:
    """A load, and a view that is told of its decisions afterwards, on the clock."""

    def __init__(self, num_sessions: int, num_replicas: int) -> None:
        self._decisions: list[Decision] = []
        self.load = Load(num_sessions, num_replicas, 1.5, "panjiu", self._decisions.append)
        catalog = Catalog.packaged()
        rack = catalog.rack("panjiu-al128")
        plan = plan_deployment(
            rack, catalog.chip(rack.chip), catalog.model("qwen3-8b"), DeploymentRequest()
        )
        layout = emulated_layout(plan, band=Band.BASE, policy="panjiu")
        self.view = RackView(lambda: layout, FullRack(num_replicas), lambda: self._now_s)
        self._now_s = 0.0
        self._read: int | None = None
        self._moment = 0
        self.take_s = self.frame_s = 0.0
        self.num_decisions = self.num_frames = self.num_frame_bytes = 0

    def run(self, num_turns: int) -> None:
        """Let so many turns end, then tell the view, a frame every ``FRAME_S``."""
        self.load.run(num_turns)
        decisions = self._decisions[:]
        self._decisions.clear()
        first = 0
        for number, decision in enumerate(decisions):
            if decision.now_s >= self._now_s + FRAME_S:
                self._tell(decisions[first:number])
                self._now_s = decision.now_s
                self._look()
                first = number
        self._tell(decisions[first:])

    def reset(self) -> None:
        """Forget what was timed."""
        self.load.finished.clear()
        self.load.woken_s = self.take_s = self.frame_s = 0.0
        self.num_decisions = self.num_frames = self.num_frame_bytes = 0

    def whole_frame(self) -> tuple[float, int]:
        """Return the seconds and bytes of a whole frame, the fastest of some."""
        fastest_s, num_bytes = float("inf"), 0
        for _ in range(WHOLE_FRAMES):
            self._moment += 1
            began_s = time.perf_counter()
            frame, _ = self.view.frame(None, self._moment)
            fastest_s = min(fastest_s, time.perf_counter() - began_s)
            num_bytes = len(frame)
        return fastest_s, num_bytes

    def _tell(self, decisions: Sequence[Decision]) -> None:
        take = self.view.take
        began_s = time.perf_counter()
        for decision in decisions:
            take(decision)
        self.take_s += time.perf_counter() - began_s
        self.num_decisions += len(decisions)

    def _look(self) -> None:
        self._moment += 1
        began_s = time.perf_counter()
        frame, self._read = self.view.frame(self._read, self._moment)
        self.frame_s += time.perf_counter() - began_s
        self.num_frames += 1
        self.num_frame_bytes += len(frame)


def rows(num_sessions: int, num_replicas: int) -> Iterator[str]:
    """Yield the lines of the report."""
    loads = [WatchedLoad(num, num_replicas) for num in (num_sessions, 10 * num_sessions)]
    for one in loads:
        one.run(2 * one.load.num_sessions)
        one.reset()
    with rare_garbage_collection():  # as a server does
        for _ in range(NUM_CHUNKS):
            for one in loads:
                one.run(CHUNK_TURNS)
    for one in loads:
        decision_us = 1e6 * one.take_s / one.num_decisions
        turn_us = 1e6 * one.take_s / len(one.load.finished)
        whole_s, whole_bytes = one.whole_frame()
        yield (
            f"{one.load.num_sessions:>6,} sessions: {decision_us:.1f} us a decision, "
            f"{turn_us:.0f} us a turn ({turn_us / 1e6 / one.load.cost().mean_s:.2f} of what the "
            f"scheduler takes); a frame {1e6 * one.frame_s / one.num_frames:.0f} us, "
            f"{one.num_frame_bytes / one.num_frames / 1000:.1f} KB; a whole one "
            f"{1e3 * whole_s:.1f} ms, {whole_bytes / 1000:.0f} KB"
        )


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=128)
    args = parser.parse_args()
    for row in rows(args.sessions, args.replicas):
        print(row, flush=True)


if __name__ == "__main__":
    main()
