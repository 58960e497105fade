"""Panjiu's policy."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from scheduler.events import GapCause
from scheduler.gap_model import GapModel
from scheduler.ids import ReplicaId, SessionId
from scheduler.load_order import LoadOrder
from scheduler.panjiu.kv_ledger import KvLedger, SessionKv
from scheduler.rack import Rack
from scheduler.session import Session, Turn
from scheduler.setup import PolicySetup


@dataclass(frozen=True, slots=True)
class PanjiuSettings:
    reserve: float = 0.02
    gate_s: float = 1.0
    slack: float = 4.0
    price: float = 1.0
    tries: int = 8
    crowd: float = 0.5
    output_tokens: float = 300.0


class Panjiu:
    def __init__(self, setup: PolicySetup, settings: PanjiuSettings | None = None) -> None:
        self.settings = settings or PanjiuSettings()
        fleet = setup.fleet
        self._cost = setup.cost
        self._oracle = setup.oracle
        self._block = fleet.block_size_tokens
        self.ledger = KvLedger(fleet, self.settings.reserve)
        self.gaps = GapModel()
        self._kvs: dict[SessionId, SessionKv] = {}
        self._backlog_s = [0.0] * fleet.num_replicas  # of prefill dispatched, by our reckoning
        self._backlog = LoadOrder(fleet.num_replicas)  # the same in ms
        self._held: list[tuple[float, int, Turn]] = []
        self._orders = 0
        self._withdrawn: set[Turn] = set()
        self._moving: list[tuple[float, int, Turn, ReplicaId, int]] = []
        self._prefill_s: dict[Turn, float] = {}
        self._now_s = 0.0
        self._running: set[SessionKv] = set()

    @property
    def next_wake_s(self) -> float | None:
        moving = self._moving[0][0] if self._moving else None
        if self._held:
            due = max(self._held[0][0], self._now_s + 1.0)
            return due if moving is None else min(due, moving)
        return moving

    # ---- events

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        session = turn.session
        kv = self._kvs.get(session.session_id)
        ledger = self.ledger
        if kv is None:
            kv = self._kvs[session.session_id] = SessionKv(session, ledger.tree.root)
        elif session.num_turns_ended:
            self.gaps.observe(session.gap, rack.now_s - session.last_ended_s)
        kv.is_idle = False
        if turn.block_hashes:
            num = turn.num_prompt_tokens // self._block
            rewound = turn.num_kept_blocks < kv.leaf.end
            kv.leaf = ledger.tree.extend(kv.leaf, turn.block_hashes[:num], turn.num_kept_blocks)
            if rewound:
                ledger.truncate(kv)
        if not self._try(turn, kv, rack):
            self._hold(turn, kv, rack)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:
        self._end_prefill(turn)
        self._drain(rack)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        kv = self._kvs[turn.session.session_id]
        if turn.replica_id is None:
            self._withdrawn.add(turn)
            kv.is_idle = turn.session.num_active_turns == 0
            return
        self._end_prefill(turn)
        self._running.discard(kv)
        # solo time of this turn
        kv.solo_s += rack.now_s - turn.dispatched_s
        if kv.held_on == turn.replica_id and turn.session.num_active_turns == 0:
            context = turn.session.context_tokens
            self.ledger.set_loose(kv, max(0, -(-context // self._block) - kv.held_leaf.end))
            rack.retain(turn.session, turn.replica_id)
        kv.is_idle = turn.session.num_active_turns == 0
        self._drain(rack)

    def session_closed(self, session: Session, rack: Rack) -> None:
        kv = self._kvs.pop(session.session_id)
        if kv.held_on is not None:
            rack.drop(session, kv.held_on)
        self.ledger.forget(kv)
        self._drain(rack)

    def woken(self, rack: Rack) -> None:
        while self._moving and self._moving[0][0] <= rack.now_s:
            _, _, turn, replica, cached = heapq.heappop(self._moving)
            if turn in self._withdrawn:
                self._withdrawn.discard(turn)
                self._end_prefill(turn)
                continue
            rack.dispatch(turn, replica, num_cached_tokens=cached)
        self._drain(rack)

    # ---- deciding

    def _hold(self, turn: Turn, kv: SessionKv, rack: Rack) -> None:
        self._orders += 1
        cached = kv.num_held_blocks * self._block
        service = self._cost.prefill_s(
            min(cached, turn.num_prompt_tokens - 1), turn.num_prompt_tokens
        )
        k = self.settings.slack
        session = turn.session
        solo = kv.solo_s + service + 3.0
        key = rack.now_s + k * solo - (session.service_s + session.wait_s)
        turn.due_s = key
        self._now_s = rack.now_s
        heapq.heappush(self._held, (key, self._orders, turn))

    def _drain(self, rack: Rack) -> None:
        self._now_s = rack.now_s
        put_back = []
        tries = self.settings.tries
        while self._held and tries:
            entry = heapq.heappop(self._held)
            turn = entry[2]
            if turn in self._withdrawn:
                self._withdrawn.discard(turn)
                continue
            kv = self._kvs[turn.session.session_id]
            if not self._try(turn, kv, rack):
                put_back.append(entry)
                tries -= 1
        for entry in put_back:
            heapq.heappush(self._held, entry)

    def _try(self, turn: Turn, kv: SessionKv, rack: Rack) -> bool:
        """Dispatch if there is a good place now."""
        home = kv.held_on
        least = self._backlog.least()
        roomy = self.ledger.used_blocks.least()
        best = None
        for replica in {least, roomy} if home is None else {home, least, roomy}:
            option = self._option(turn, kv, replica, rack)
            if option is not None and (best is None or option[0] < best[0]):
                best = option
        if best is None:
            return False
        self._go(turn, kv, best, rack)
        return True

    def _option(
        self, turn: Turn, kv: SessionKv, replica: ReplicaId, rack: Rack
    ) -> tuple[float, ReplicaId, int, float, float, int] | None:
        """Return (seconds, replica, cached tokens, prefill seconds, move seconds, blocks)."""
        s, block, tree = self.settings, self._block, self.ledger.tree
        backlog = self._backlog_s[replica]
        there = tree.num_held(kv.leaf, replica)
        move_s, cached = 0.0, there
        home = kv.held_on
        if home is not None and home != replica and self._cost.transfer.same_domain(home, replica):
            held = kv.num_held_blocks
            if held > there:
                move_s = self._cost.transfer.pull_s((held - there) * block)
                cached = held
        prompt = turn.num_prompt_tokens
        cached_tokens = min(cached * block, (prompt - 1) // block * block)
        prefill_s = self._cost.prefill_s(cached_tokens, prompt)
        if backlog > 1e-6 and backlog + prefill_s > s.gate_s:
            return None
        needed = -(-(prompt + int(s.output_tokens)) // block) - there
        if home == replica:
            needed -= kv.num_loose_blocks
        room = self.ledger.free_blocks(replica)
        loss_s = 0.0
        if needed > room:
            loss = self._loss(needed - room, turn, kv, replica, rack)
            if loss is None:
                return None
            loss_s = loss
        crowd = rack.active_turns.loads[replica] * s.crowd
        seconds = backlog + move_s + prefill_s * (1 + crowd) + loss_s
        return seconds, replica, cached_tokens, prefill_s, move_s, needed

    def _value(self, kv: SessionKv, rack: Rack) -> tuple[float, int]:
        """Return (value per block-second of keeping, blocks freed)."""
        replica = kv.held_on
        assert replica is not None
        blocks = self.ledger.tree.num_private(kv.held_leaf, replica) + kv.num_loose_blocks
        if not blocks:
            return float("inf"), 0
        tokens = kv.held_leaf.end * self._block
        shared = tokens - blocks * self._block
        again_s = self._cost.prefill_s(max(0, shared), max(1, tokens))
        elapsed = rack.now_s - kv.session.last_ended_s
        rate = self.gaps.return_rate(kv.session.gap, elapsed)
        return again_s * rate / blocks, blocks

    def _loss(
        self, missing: int, turn: Turn, kv: SessionKv, replica: ReplicaId, rack: Rack
    ) -> float | None:
        """Return what it costs to make room, None if it is not worth it."""
        due = getattr(turn, "due_s", None)
        overdue = due is not None and due <= rack.now_s
        victims = self._victims(missing, kv, replica, rack, overdue)
        if victims is None:
            return None
        if overdue:
            return 0.0
        blocks = -(-turn.num_prompt_tokens // self._block)
        worth = self.settings.price * self._density(turn, kv, blocks)
        if victims and victims[-1][0] > worth:
            return None
        return 0.0

    def _density(self, turn: Turn, kv: SessionKv, blocks: int) -> float:
        """Useful seconds per block-second of a session that goes on."""
        service = 2.0
        cycle = 40.0
        return service / (cycle * blocks)

    def _victims(
        self, missing: int, kv: SessionKv, replica: ReplicaId, rack: Rack, overdue: bool
    ) -> list[tuple[float, int, SessionKv]] | None:
        candidates = []
        for other in self.ledger.residents[replica]:
            if other.is_idle and other is not kv:
                value, blocks = self._value(other, rack)
                candidates.append((value, blocks, other))
            elif overdue and other is not kv and other not in self._running:
                value, blocks = self._value(other, rack)
                candidates.append((1e9 + value, blocks, other))
        candidates.sort(key=lambda c: c[0])
        chosen = []
        for candidate in candidates:
            if missing <= 0:
                break
            chosen.append(candidate)
            missing -= candidate[1]
        if missing > 0 and not (overdue and rack.active_turns.loads[replica] == 0):
            return None
        return chosen

    def _go(
        self,
        turn: Turn,
        kv: SessionKv,
        option: tuple[float, ReplicaId, int, float, float, int],
        rack: Rack,
    ) -> None:
        _, replica, cached, prefill_s, move_s, needed = option
        room = self.ledger.free_blocks(replica)
        if needed > room:
            for _, _, victim in self._victims(
                needed - room, kv, replica, rack, getattr(turn, "due_s", 1e99) <= rack.now_s
            ) or ():
                self.ledger.release(victim)
                rack.release(victim.session, replica)
                victim.num_pauses += 1
        source = kv.held_on
        prompt_blocks = turn.num_prompt_tokens // self._block
        if not turn.block_hashes:
            prompt_blocks = 0
        loose = -(-(turn.num_prompt_tokens + int(self.settings.output_tokens)) // self._block)
        self.ledger.hold(kv, replica, max(0, loose - kv.leaf.end))
        self._prefill_s[turn] = prefill_s
        self._running.add(kv)
        self._add_backlog(replica, prefill_s)
        turn.replica_hint = replica
        if move_s > 0 and source is not None:
            ready_s = rack.now_s + move_s
            rack.pull(turn.session, source, replica, ready_s)
            rack.release(turn.session, source)
            self._orders += 1
            heapq.heappush(self._moving, (ready_s, self._orders, turn, replica, cached))
        else:
            if source is not None and source != replica:
                rack.release(turn.session, source)
            rack.dispatch(turn, replica, num_cached_tokens=cached)

    def _add_backlog(self, replica: ReplicaId, seconds: float) -> None:
        self._backlog_s[replica] += seconds
        self._backlog.add(replica, round(seconds * 1000))

    def _end_prefill(self, turn: Turn) -> None:
        seconds = self._prefill_s.pop(turn, None)
        if seconds is not None:
            replica = turn.replica_hint
            self._add_backlog(replica, -seconds)
