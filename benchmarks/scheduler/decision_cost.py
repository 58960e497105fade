"""What a turn costs the scheduler, and how much it keeps of a session.

    python -m benchmarks.scheduler.decision_cost [--sessions 1000] [--replicas 128]

Sessions of 120k tokens on 128 replicas take turns in a random order; a turn's cost is that of its
three events (arrived, first token, ended) in the scheduler and its policy, with nothing behind
them, and a share of the wakings that the policy asked for. Once there is KV for all, once it holds
a share of the contexts, so turns are held and KV is dropped. Few and many sessions are timed by
turns, so that what else the machine does weighs on both.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import DeploymentRequest, plan_deployment
from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Dispatch
from scheduler.cost import TabulatedCost
from scheduler.decision import Decision
from scheduler.events import Event, GapCause, GapHint, PrefillEnded, TurnArrived, TurnEnded, Woken
from scheduler.ids import SessionId, TurnId
from scheduler.policies import make_policy
from scheduler.rack import ReplicaFleet
from scheduler.setup import PolicySetup

CONTEXT_TOKENS, APPENDED_TOKENS, OUTPUT_TOKENS, BLOCK = 120_000, 900, 220, 64
PREFILL_S, DECODE_S, GAP_S = 0.5, 4.0, 20.0


@dataclass(frozen=True)
class Cost:
    """Seconds a turn, over the turns that were timed; the mean has a share of the wakings."""

    mean_s: float
    p99_s: float
    num_held: int


class Load:
    """Sessions that take turns for ever."""

    def __init__(
        self,
        num_sessions: int,
        num_replicas: int,
        kv_share: float,
        policy: str,
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        self.num_sessions = num_sessions
        kv_tokens = int(num_sessions * CONTEXT_TOKENS * kv_share / num_replicas)
        kv_tokens = max(kv_tokens, 2 * CONTEXT_TOKENS)
        catalog = Catalog.packaged()
        rack = catalog.rack("panjiu-al128")
        deployment = plan_deployment(
            rack, catalog.chip("m890"), catalog.model("qwen3-235b-a22b"), DeploymentRequest()
        )
        setup = PolicySetup(
            ReplicaFleet(num_replicas, kv_tokens, BLOCK),
            TabulatedCost.of(deployment, Band.BASE, 8192),
        )
        self.scheduler = ClusterScheduler(setup.fleet, make_policy(policy, setup), on_decision)
        self.scheduler.explains = False
        self._rng = np.random.default_rng(0)
        self._gap_s = GAP_S * num_sessions / (8 * num_replicas)  # the same work for every replica
        self._chains = [
            list(range(n << 32, (n << 32) + CONTEXT_TOKENS // BLOCK)) for n in range(num_sessions)
        ]
        self._turns = [0] * num_sessions
        self._due: list[tuple[float, int, str, int]] = []
        self._order = 0
        self.spent_s: dict[int, float] = {}
        self.woken_s = 0.0
        self.finished: list[float] = []
        for session in range(num_sessions):
            self._push(float(self._rng.uniform(0, self._gap_s)), "arrive", session)

    def cost(self) -> Cost:
        """Return what the turns since the last clearing cost."""
        spent = np.array(self.finished)
        mean_s = (float(spent.sum()) + self.woken_s) / len(spent)
        return Cost(mean_s, float(np.percentile(spent, 99)), self.scheduler.num_held_turns)

    def _push(self, at_s: float, what: str, session: int) -> None:
        self._order += 1
        heapq.heappush(self._due, (at_s, self._order, what, session))

    def run(self, num_turns: int) -> None:
        """Let so many turns end."""
        until = len(self.finished) + num_turns
        while len(self.finished) < until:
            wake_s = self.scheduler.next_wake_s
            if wake_s is not None and wake_s <= self._due[0][0]:
                self._handle(Woken(), max(wake_s, self.now_s), None)
                continue
            now_s, _, what, session = heapq.heappop(self._due)
            self.now_s = now_s
            self._handle(self._event(what, session), now_s, session)
            if what == "prefilled":
                self._push(now_s + DECODE_S, "end", session)
            elif what == "end":
                self.finished.append(self.spent_s.pop(session, 0.0))
                self._turns[session] += 1
                self._push(now_s + float(self._rng.exponential(self._gap_s)), "arrive", session)

    now_s = 0.0

    def _event(self, what: str, session: int) -> Event:
        turn = TurnId(f"{session}#{self._turns[session]}")
        chain = self._chains[session]
        if what == "prefilled":
            return PrefillEnded(turn, 0)
        if what == "end":
            return TurnEnded(turn, len(chain) * BLOCK + OUTPUT_TOKENS, GapHint(GapCause.TOOL))
        chain.extend(range(chain[-1] + 1, chain[-1] + 1 + APPENDED_TOKENS // BLOCK))
        return TurnArrived(
            turn,
            SessionId(str(session)),
            len(chain) * BLOCK,
            OUTPUT_TOKENS,
            block_hashes=chain,
        )

    def _handle(self, event: Event, now_s: float, session: int | None) -> None:
        began = time.perf_counter()
        commands = self.scheduler.handle(event, now_s)
        spent = time.perf_counter() - began
        if session is None:
            self.woken_s += spent
        else:
            self.spent_s[session] = self.spent_s.get(session, 0.0) + spent
        for command in commands:
            if isinstance(command, Dispatch):
                whose = int(command.turn_id.split("#")[0])
                self._push(now_s + PREFILL_S, "prefilled", whose)


CHUNK_TURNS = 1000


def measure(loads: list[Load]) -> list[Cost]:
    """Time turns of every load once each of its sessions has had some."""
    for load in loads:
        load.run(2 * load.num_sessions)
        load.finished.clear()
        load.woken_s = 0.0
    gc.collect()
    gc.freeze()
    num_turns = max(10_000, *(2 * load.num_sessions for load in loads))
    for _ in range(num_turns // CHUNK_TURNS):
        for load in loads:
            load.run(CHUNK_TURNS)
    gc.unfreeze()
    return [load.cost() for load in loads]


def session_bytes(policy: str) -> float:
    """Return what the scheduler keeps of a session of 120k tokens."""
    tracemalloc.start()
    load = Load(200, 128, 2.0, policy)
    before = tracemalloc.get_traced_memory()[0]
    load.run(1000)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / 200


def rows(args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the report."""
    for kv_share, what in ((1.5, "KV for all"), (0.8, "KV for 80 % of them")):
        few, many = measure(
            [
                Load(num_sessions, args.replicas, kv_share, args.policy)
                for num_sessions in (args.sessions, 10 * args.sessions)
            ]
        )
        for cost, num in ((few, args.sessions), (many, 10 * args.sessions)):
            yield (
                f"{what:20} {num:>7,} sessions x {CONTEXT_TOKENS:,} tokens on {args.replicas} "
                f"replicas: {cost.mean_s * 1e6:6.1f} us a turn, p99 {cost.p99_s * 1e6:6.1f} us; "
                f"{cost.num_held:,} held"
            )
        yield f"{what:20} ten times the sessions: {many.mean_s / few.mean_s:.2f}x a turn"
    yield f"kept of a session: {session_bytes(args.policy) / 1000:.1f} KB"


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=128)
    parser.add_argument("--policy", default="panjiu")
    for row in rows(parser.parse_args()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
