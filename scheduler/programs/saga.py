"""SAGA: sessions stay with their KV, which is evicted by what the workflow will need.

A turn goes to its session's worker while that is loaded below 80 % and has the KV, else to the
least loaded. All idle KV is kept for a time to live; when a turn lacks room, what is least likely
to be used again goes, and the old and the large. A worker without work takes a waiting session from
one with too much, and its KV with it.

Source: SAGA, arXiv 2605.00528: WA-LRU, tool-call-aware TTL, session affinity and work stealing; not
its fair shares, which need deadlines. Turns wait at their worker here, since an engine does not
give back what it was sent: in order of arrival, until their context fits beside those that run.
"""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.programs.pins import Pins
from scheduler.programs.replica_load import kv_usage, least_loaded
from scheduler.programs.running_mean import RunningMean
from scheduler.programs.saga_formulas import (
    END_PROBABILITY,
    MAX_TTL_S,
    ToolLatency,
    eviction_priority,
    reuse_probability,
    ttl_s,
)
from scheduler.programs.ticker import earliest
from scheduler.programs.tool_gaps import ended_gap_s, gap_class
from scheduler.programs.work_stealing import IdleWorkers
from scheduler.rack import Rack
from scheduler.session import Session, Turn
from scheduler.setup import PolicySetup

MAX_LOAD = 0.8
QUEUED_LOAD = 0.01
"""Of every turn that waits at a worker."""


class Saga:
    """Routes, keeps KV and steals.

    Invariant: a held turn is in exactly one queue, or on its way with its session's KV.
    """

    def __init__(self, setup: PolicySetup) -> None:
        self._capacity = setup.fleet.max_context_tokens
        self._block_size = setup.fleet.block_size_tokens
        self._transfer = setup.cost.transfer
        self._queues: list[dict[Turn, None]] = [{} for _ in range(setup.fleet.num_replicas)]
        self._moving: dict[Turn, tuple[float, ReplicaId]] = {}
        self._idle = IdleWorkers(setup.seed)
        self._theft_s: float | None = None
        self._pins = Pins(lambda turn: turn.arrived_s, self._eviction_priority)
        self._latencies: dict[str, ToolLatency] = {}
        self._observation = RunningMean(1.0)
        self._end_share = RunningMean(END_PROBABILITY)

    @property
    def next_wake_s(self) -> float | None:
        """When KV has arrived, a worker may steal, or a time to live is over."""
        arrivals = (ready_s for ready_s, _ in self._moving.values())
        return earliest(self._theft_s, self._pins.next_wake_s, *arrivals)

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Route it, and run it once it fits."""
        session = turn.session
        gap_s = ended_gap_s(turn, rack.now_s)
        if gap_s is not None:
            self._latencies.setdefault(gap_class(session.gap), ToolLatency()).add(gap_s)
            self._observation.add(max(0, turn.num_prompt_tokens - session.context_tokens))
            self._end_share.add(0.0)
        worker = self._route(turn, rack)
        if worker != session.home:
            self._pins.unpin(session, rack)
        self._queues[worker][turn] = None
        self._go_on(rack)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Unpin: the turn holds its KV itself now."""
        self._pins.unpin(turn.session, rack)
        self._go_on(rack)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Keep its KV for a time to live."""
        session, replica = turn.session, turn.replica_id
        self._moving.pop(turn, None)
        for queue in self._queues:
            queue.pop(turn, None)
        if session.num_active_turns == 0 and not session.closed and replica is not None:
            latency = self._latencies.get(gap_class(session.gap))
            law = None if latency is None else latency.law
            until_s = rack.now_s + ttl_s(law, kv_usage(rack, replica))
            self._pins.pin(session, replica, until_s, rack)
        self._go_on(rack)

    def session_closed(self, session: Session, rack: Rack) -> None:
        """Give up its KV."""
        self._end_share.add(1.0)
        self._pins.drop(session, rack)
        self._go_on(rack)

    def woken(self, rack: Rack) -> None:
        """Evict what is over its time, run what has its KV, and steal."""
        for session in self._pins.due(rack.now_s):
            self._pins.unpin(session, rack)
        self._pins.look_again(rack)
        self._go_on(rack)

    def _loads(self, rack: Rack) -> list[float]:
        """Return the share of each worker's KV that turns take, and a little for who waits."""
        return [
            rack.active_tokens.loads[at] / self._capacity + QUEUED_LOAD * len(queue)
            for at, queue in enumerate(self._queues)
        ]

    def _route(self, turn: Turn, rack: Rack) -> ReplicaId:
        loads = self._loads(rack)
        home = turn.session.home
        if home is not None and loads[home] < MAX_LOAD and self._is_cached(turn, home, rack):
            return home
        return least_loaded(loads, rack)

    def _is_cached(self, turn: Turn, worker: ReplicaId, rack: Rack) -> bool:
        """Return whether a worker has most of what the session had computed."""
        if rack.probe is None:
            return self._pins.holds(turn.session, rack.now_s)
        num_cached = rack.probe.num_cached_blocks(worker, turn.block_hashes)
        num_tokens = num_cached * rack.fleet.block_size_tokens
        return num_cached > 0 and 2 * num_tokens >= turn.session.context_tokens

    def _eviction_priority(self, session: Session, now_s: float) -> float:
        others = [
            one
            for at in range(len(self._queues))
            for one in self._pins.sessions(ReplicaId(at))
            if one.home == session.home
        ]
        longest_s = max((now_s - one.last_ended_s for one in others), default=0.0)
        largest = max((one.context_tokens for one in others), default=0)
        idle = (now_s - session.last_ended_s) / max(longest_s, 1e-3)
        reuse = reuse_probability(
            session.context_tokens, self._observation.mean, self._end_share.mean
        )
        return eviction_priority(min(1.0, idle), reuse, session.context_tokens / max(1, largest))

    def _go_on(self, rack: Rack) -> None:
        for turn, (ready_s, worker) in list(self._moving.items()):
            if ready_s <= rack.now_s:
                del self._moving[turn]
                self._run(turn, worker, rack)
        for at, queue in enumerate(self._queues):
            worker = ReplicaId(at)
            while queue and self._fits(next(iter(queue)), worker, rack):
                turn = next(iter(queue))
                del queue[turn]
                self._run(turn, worker, rack)
            self._pins.make_room(worker, rack)
        self._steal(rack)

    def _fits(self, turn: Turn, worker: ReplicaId, rack: Rack) -> bool:
        used = rack.active_tokens.loads[worker]
        return used == 0 or used + turn.num_prompt_tokens <= self._capacity

    def _run(self, turn: Turn, worker: ReplicaId, rack: Rack) -> None:
        rack.dispatch(turn, worker)
        self._pins.make_room(worker, rack)

    def _steal(self, rack: Rack) -> None:
        now_s = rack.now_s
        bound_for = {worker for _, worker in self._moving.values()}
        for at in range(len(self._queues)):
            is_idle = rack.active_turns.loads[at] == 0 and at not in bound_for
            self._idle.saw(ReplicaId(at), now_s, is_idle=is_idle)
        self._theft_s = None
        if not any(self._queues):
            return
        for thief in self._idle.thieves(now_s):
            queued = [len(queue) for queue in self._queues]
            victim = self._idle.victim(thief, self._loads(rack), queued)
            if victim is not None:
                self._idle.saw(thief, now_s, is_idle=False)
                self._move(next(iter(self._queues[victim])), victim, thief, rack)
        self._theft_s = self._idle.next_theft_s(now_s)

    def _move(self, turn: Turn, victim: ReplicaId, thief: ReplicaId, rack: Rack) -> None:
        """Take a turn and its KV to another worker; it runs there when that has arrived."""
        del self._queues[victim][turn]
        session = turn.session
        tokens = self._movable_tokens(turn, victim, thief, rack)
        if tokens == 0:
            self._pins.unpin(session, rack)
            self._run(turn, thief, rack)
            return
        ready_s = rack.now_s + self._transfer.pull_s(tokens)
        rack.pull(session, victim, thief, ready_s)
        self._pins.unpin(session, rack)
        self._pins.expect(session, thief, tokens, rack.now_s + MAX_TTL_S)
        self._moving[turn] = ready_s, thief

    def _movable_tokens(self, turn: Turn, victim: ReplicaId, thief: ReplicaId, rack: Rack) -> int:
        """Return how much of a prompt the victim has, if there is a link to move it over."""
        if not self._transfer.same_domain(victim, thief):
            return 0
        if rack.probe is None:
            kept = self._pins.holds(turn.session, rack.now_s)
            return min(turn.session.context_tokens, turn.num_prompt_tokens) if kept else 0
        return rack.probe.num_cached_blocks(victim, turn.block_hashes) * self._block_size
