"""Prices the ways to run a turn: where it could go, what must move, who would have to leave."""

from __future__ import annotations

from dataclasses import dataclass

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

    def candidates(self, kv: SessionKv) -> set[ReplicaId]:
        """Return the replicas that may be best: where its KV is, the idlest, the emptiest."""
        candidates = {self._backlog.least(), self._ledger.used_blocks.least()}
        if kv.held_on is not None:
            candidates.add(kv.held_on)
        elif kv.host_on is not None:
            candidates.add(kv.host_on)
        return candidates

    def stay_s(self, turn: Turn, kv: SessionKv, rack: Rack) -> float:
        """Return the seconds to wait for the replica that holds a turn's KV and to run there.

        Infinite where no replica holds it, or the one that does has no room for what is new.
        """
        home = kv.held_on
        if home is None:
            return float("inf")
        block, prompt = self._block, turn.num_prompt_tokens
        there = self._ledger.tree.num_held(kv.leaf, home)
        needed = -(-(prompt + self._settings.output_tokens) // block) - there
        if needed - kv.num_loose_blocks > self._ledger.free_blocks(home):
            return float("inf")
        prefill_s = self._cost.prefill_s(min(there * block, (prompt - 1) // block * block), prompt)
        crowd = 1 + rack.active_turns.loads[home] * self._settings.crowd
        return self._backlog.ahead_s(home) + prefill_s * crowd

    def option(
        self, turn: Turn, kv: SessionKv, replica: ReplicaId, rack: Rack, *, is_due: bool
    ) -> Option | None:
        """Price a turn on a replica; None where it has no place now."""
        block, prompt, home = self._block, turn.num_prompt_tokens, kv.held_on
        there = self._ledger.tree.num_held(kv.leaf, replica)
        needed = -(-(prompt + self._settings.output_tokens) // block) - there
        if home == replica:
            needed -= kv.num_loose_blocks
        victims: list[Victim] = []
        missing = needed - self._ledger.free_blocks(replica)
        if missing > 0:
            found = self._victims(kv, replica, missing, needed, rack, is_due=is_due)
            if found is None:
                return None
            victims = found
        num_cached, move_s, load_s = self._reachable(turn, kv, replica, there, rack)
        num_cached_tokens = min(num_cached * block, (prompt - 1) // block * block)
        prefill_s = self._cost.prefill_s(num_cached_tokens, prompt)
        ahead_s = self._backlog.ahead_s(replica)
        if ahead_s > 0 and ahead_s + prefill_s > self._settings.gate_s:
            return None
        price = PricedOption(
            replica,
            ahead_s,
            move_s,
            load_s,
            prefill_s,
            prefill_s * rack.active_turns.loads[replica] * self._settings.crowd,
            sum([victim.again_s for victim in victims]) if is_due else 0.0,
            num_cached_tokens,
            len(victims),
        )
        return Option(price, victims)

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
        if home == replica:
            return there, 0.0, 0.0
        if home is not None:
            held = kv.num_held_blocks
            if held <= there or not self._links.reach(home, replica):
                return there, 0.0, 0.0
            num_tokens = (held - there) * self._block
            return held, self._links.pull_s(home, replica, num_tokens, rack.now_s), 0.0
        if rack.probe is None:
            return there, 0.0, 0.0
        # What nobody holds may still be there, as long as nobody needed the room.
        num_cached = max(there, rack.probe.num_cached_blocks(replica, turn.block_hashes))
        if kv.host_on != replica or not self._fleet.host_kv_tokens:
            return num_cached, 0.0, 0.0
        in_host = rack.probe.num_host_blocks(replica, turn.block_hashes)
        return num_cached + in_host, 0.0, self._cost.transfer.load_s(in_host * self._block)

    def _victims(
        self,
        kv: SessionKv,
        replica: ReplicaId,
        missing: int,
        needed: int,
        rack: Rack,
        *,
        is_due: bool,
    ) -> list[Victim] | None:
        if is_due:
            is_empty = rack.active_turns.loads[replica] == 0
            return self._room.victims_at_any_price(
                replica, missing, kv, rack.now_s, is_empty=is_empty
            )
        settings = self._settings
        worth = settings.price * settings.turn_s / (settings.cycle_s * max(1, needed))
        return self._room.victims(replica, missing, worth, kv, rack.now_s)
