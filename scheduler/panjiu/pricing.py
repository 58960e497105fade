"""Prices the ways to run a turn: where it could go, what must move, who would have to leave."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from scheduler.cost import CostModel
from scheduler.ids import ReplicaId
from scheduler.panjiu.kv_ledger import KvLedger, SessionKv
from scheduler.panjiu.links import Links
from scheduler.panjiu.option import Option
from scheduler.panjiu.prefill_backlog import PrefillBacklog
from scheduler.panjiu.room import RoomPlanner, Victim
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.rack import Rack, ReplicaFleet
from scheduler.receipt import PricedOption
from scheduler.session import Turn

HOLDERS_LOOKED_AT = 8
"""Of those that hold as much of a trunk: a system prompt may be held everywhere."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the policy knows of the rack.

    Attributes:
        ledger: Where KV lies.
        room: Who could be dropped.
        links: Transfers under way.
        backlog: Prefill ahead of each replica.
    """

    ledger: KvLedger
    room: RoomPlanner
    links: Links
    backlog: PrefillBacklog


class Pricing:
    """Looks into the policy's books; changes nothing.

    Args:
        fleet: The replicas.
        cost: What their work costs.
        settings: The policy's.
        books: See there.
    """

    def __init__(
        self,
        fleet: ReplicaFleet,
        cost: CostModel,
        settings: PanjiuSettings,
        books: Books,
    ) -> None:
        self._fleet = fleet
        self._block = fleet.block_size_tokens
        self._cost = cost
        self._settings = settings
        self._ledger = books.ledger
        self._room = books.room
        self._links = books.links
        self._backlog = books.backlog

    def home(self, kv: SessionKv) -> ReplicaId | None:
        """Return the replica that holds a session's KV, or most of what it begins with.

        A fork has no KV of its own yet; that of its trunk is where it begins. Where several hold as
        much, the one with the least prefill ahead, of the first few.
        """
        if kv.held_on is not None:
            return kv.held_on
        holders = list(islice(self._ledger.tree.holders(kv.leaf), HOLDERS_LOOKED_AT))
        return min(holders, key=self._backlog.ahead_s, default=None)

    def candidates(self, turn: Turn, kv: SessionKv, rack: Rack) -> set[ReplicaId]:
        """Return the replicas that may be best: where its KV is or its trunk's, the idlest.

        Idle are those with the least prefill ahead, and the least context to decode beside. A turn
        that avoids some may have any.
        """
        if turn.avoid:
            return set(map(ReplicaId, range(rack.num_replicas)))
        candidates = {
            self._backlog.least(),
            self._ledger.used_blocks.least(),
            rack.active_tokens.least(),
        }
        known = (self.home(kv), *(() if kv.held_on is not None else (kv.left_on, kv.host_on)))
        candidates.update(replica for replica in known if replica is not None)
        return candidates

    def num_planned_blocks(self, turn: Turn) -> int:
        """Return how many blocks a turn's prompt and an ordinary reply begin."""
        num_tokens = turn.num_prompt_tokens + self._settings.output_tokens
        return -(-num_tokens // self._block)

    def option(
        self, turn: Turn, kv: SessionKv, replica: ReplicaId, rack: Rack, *, is_due: bool
    ) -> Option | None:
        """Price a turn on a replica; None where it has no place now."""
        if self._backlog.ahead_s(replica) >= self._settings.gate_s:
            return None
        there = self._ledger.tree.num_held(kv.leaf, replica)
        needed = self._num_needed(turn, kv, replica, there)
        missing = needed - self._ledger.free_blocks(replica)
        victims: list[Victim] | None = []
        if missing > 0 and not is_due:
            victims = self._cheap_victims(kv, replica, missing, needed, rack)
            if victims is None:
                return None
        price = self._price(turn, kv, replica, there, rack)
        if price.wait_s > 0 and price.wait_s + price.prefill_s > self._settings.gate_s:
            return None
        if missing > 0 and is_due:  # dear to find, so only where nothing else is in the way
            is_empty = rack.active_turns.loads[replica] == 0
            now_s = rack.now_s
            victims = self._room.at_any_price(replica, missing, kv, now_s, is_empty=is_empty)
            if victims is None:
                return None
            price = price._replace(loss_s=sum([victim.again_s for victim in victims]))
        if victims:
            price = price._replace(num_dropped_sessions=len(victims))
        return Option(price, victims or [])

    def elsewhere_s(self, turn: Turn, at_home: PricedOption, kv: SessionKv, rack: Rack) -> float:
        """Return the least that a turn costs anywhere but where its KV is, nobody ahead of it."""
        idle = rack.active_tokens.least()
        crowd_s, decode_s = self._beside_s(turn, at_home.prefill_s, idle, rack)
        pull_s = self._cost.transfer.pull_s(kv.num_held_blocks * self._block)
        return pull_s + at_home.prefill_s + crowd_s + decode_s

    def stay_s(self, turn: Turn, kv: SessionKv, home: ReplicaId, rack: Rack) -> float:
        """Return what it costs to wait for a turn's home and run there.

        Infinite where it has no room for what is new.
        """
        there = self._ledger.tree.num_held(kv.leaf, home)
        if self._num_needed(turn, kv, home, there) > self._ledger.free_blocks(home):
            return float("inf")
        return self._price(turn, kv, home, there, rack).seconds

    def _num_needed(self, turn: Turn, kv: SessionKv, replica: ReplicaId, there: int) -> int:
        """Return the room a turn takes on a replica beyond what is held and set aside there."""
        set_aside = kv.num_loose_blocks if kv.held_on == replica else 0
        return self.num_planned_blocks(turn) - there - set_aside

    def _price(
        self, turn: Turn, kv: SessionKv, replica: ReplicaId, there: int, rack: Rack
    ) -> PricedOption:
        """Price a turn on a replica that holds so many of its blocks, were there room."""
        block, prompt = self._block, turn.num_prompt_tokens
        num_cached, move_s, load_s = self._reachable(turn, kv, replica, there, rack)
        num_cached_tokens = min(num_cached * block, (prompt - 1) // block * block)
        prefill_s = self._cost.prefill_s(num_cached_tokens, prompt)
        crowd_s, decode_s = self._beside_s(turn, prefill_s, replica, rack)
        return PricedOption(
            replica,
            self._backlog.ahead_s(replica),
            move_s,
            load_s,
            prefill_s,
            crowd_s,
            decode_s,
            0.0,
            num_cached_tokens,
            0,
        )

    def _beside_s(
        self, turn: Turn, prefill_s: float, replica: ReplicaId, rack: Rack
    ) -> tuple[float, float]:
        """Return what its prefill and its decoding cost those who decode there, and it."""
        others = rack.active_turns.loads[replica], rack.active_tokens.loads[replica]
        crowd_s = prefill_s * others[0] * self._settings.crowd
        steps = self._settings.shared_steps
        return crowd_s, self._cost.beside_s(turn.num_prompt_tokens, steps, others)

    def _reachable(
        self, turn: Turn, kv: SessionKv, replica: ReplicaId, there: int, rack: Rack
    ) -> tuple[int, float, float]:
        """Return the blocks a replica could begin with, and the seconds to pull and to load them.

        Args:
            turn: Whose prompt.
            kv: Of its session.
            replica: Where it would run.
            there: Blocks that are held there.
            rack: The rack.
        """
        home = kv.held_on
        if not self._fleet.retains_kv and rack.probe is not None:
            return rack.probe.num_cached_blocks(replica, turn.block_hashes), 0.0, 0.0
        if home == replica:
            return there, max(0.0, kv.ready_s - rack.now_s), 0.0
        if home is not None:
            held = kv.num_held_blocks
            if held <= there or not self._links.reach(home, replica):
                return there, 0.0, 0.0
            num_tokens = (held - there) * self._block
            return held, self._links.pull_s(home, replica, num_tokens, rack.now_s), 0.0
        num_left, num_in_host = self._left_over(turn, kv, replica, rack)
        load_s = self._cost.transfer.load_s(num_in_host * self._block) if num_in_host else 0.0
        return max(there, num_left) + num_in_host, 0.0, load_s

    def _left_over(
        self, turn: Turn, kv: SessionKv, replica: ReplicaId, rack: Rack
    ) -> tuple[int, int]:
        """Return what a replica's HBM and its host still have of a prompt that nobody holds."""
        if rack.probe is None:
            return 0, 0
        num_left = rack.probe.num_cached_blocks(replica, turn.block_hashes)
        if kv.host_on != replica or not self._fleet.host_kv_tokens:
            return num_left, 0
        return num_left, rack.probe.num_host_blocks(replica, turn.block_hashes)

    def _cheap_victims(
        self, kv: SessionKv, replica: ReplicaId, missing: int, needed: int, rack: Rack
    ) -> list[Victim] | None:
        """Return whom to drop for room that a turn is to have until its session's next."""
        settings = self._settings
        worth = settings.price * settings.turn_s / (settings.cycle_s * max(1, needed))
        return self._room.victims(replica, missing, worth, kv, rack.now_s)
