"""Panjiu's policy: one objective in seconds over place, hold, move, keep and drop.

A turn goes where its first token costs least, counting what is ahead of it there, pulling its KV
there, loading or computing what is missing, and the delay of the turns that decode beside it. A
replica takes on little more prefill than it can do at once; the rest is held back, where the least
work goes first, so that warm turns never stand behind cold ones and a session that holds KV moves
on. As KV moves over the interconnect in a hundredth of the time it takes to compute, the rack is
one pool, and a session's home is where its turn ran last.

What is held in HBM stays until somebody needs the room more (``room``). Nothing is dropped for a
newcomer that would save more by staying: under overload sessions wait at their beginning, or where
they lost their KV, and those inside go on at full speed. Nobody waits for ever: a turn that was
held ``patience`` times as long as all its session's work takes goes before all others.
"""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.ids import ReplicaId, SessionId
from scheduler.panjiu.departures import Departure, Departures
from scheduler.panjiu.foresight import Foresight, KnownForesight, LearnedForesight
from scheduler.panjiu.held_turns import HeldTurns
from scheduler.panjiu.kv_custody import KvCustody
from scheduler.panjiu.kv_ledger import KvLedger, KvState, SessionKv
from scheduler.panjiu.links import Links
from scheduler.panjiu.option import Option
from scheduler.panjiu.prefill_backlog import PrefillBacklog
from scheduler.panjiu.pricing import Books, Pricing
from scheduler.panjiu.room import RoomPlanner
from scheduler.panjiu.settings import PanjiuSettings
from scheduler.panjiu.tenant_shares import TenantShares
from scheduler.panjiu.urgency import Urgency
from scheduler.rack import Rack
from scheduler.receipt import Receipt
from scheduler.session import Session, Turn
from scheduler.setup import PolicySetup

RETRY_S = 1.0
"""Held turns are looked at again after so long, though nothing happened: gaps have gone on."""

PAUSE_S = 1.0
"""A turn that is held for longer is a pause of its session."""


class Panjiu:
    """The policy.

    Args:
        setup: The rack.
        settings: See there.
        knows_future: Takes gaps from the setup's oracle: a bound, and no policy.

    Invariant: a turn that has arrived and not ended is held, about to depart, or
        dispatched; its session's KV is HELD or RUNNING accordingly.
    """

    def __init__(
        self,
        setup: PolicySetup,
        settings: PanjiuSettings | None = None,
        *,
        knows_future: bool = False,
    ) -> None:
        self._settings = settings or PanjiuSettings()
        fleet = setup.fleet
        self._cost = setup.cost
        self._block = fleet.block_size_tokens
        self._foresight: Foresight = (
            KnownForesight(setup.oracle)
            if knows_future and setup.oracle is not None
            else LearnedForesight()
        )
        self.ledger = KvLedger(fleet, self._settings.reserve)
        room = RoomPlanner(self.ledger, setup.cost, self._foresight, self._settings, fleet)
        links = Links(setup.cost.transfer, fleet)
        self._backlog = PrefillBacklog(fleet.num_replicas)
        books = Books(self.ledger, room, links, self._backlog)
        self._pricing = Pricing(fleet, setup.cost, self._settings, books)
        self._held = HeldTurns()
        self._waits_for: dict[Turn, ReplicaId] = {}  # of those held: only a place there would do
        shares = TenantShares()
        self._custody = KvCustody(fleet, self.ledger, links, shares, self._settings)
        self._urgency = Urgency(fleet, setup.cost, self._foresight, shares, self._settings)
        self._kvs: dict[SessionId, SessionKv] = {}
        self._departures = Departures()
        self._looked_s = 0.0

    @property
    def next_wake_s(self) -> float | None:
        """When a turn with a place is to go there, or held turns are to be looked at again."""
        departs_s = self._departures.next_s
        if not self._held:
            return departs_s
        look_s = self._looked_s + RETRY_S
        return look_s if departs_s is None else min(look_s, departs_s)

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Find it a place, or hold it."""
        session = turn.session
        kv = self._kvs.get(session.session_id)
        if kv is None:
            kv = self._kvs[session.session_id] = SessionKv(session, self.ledger.tree.root)
        elif session.num_active_turns == 1:
            self._foresight.gap_ended(session, rack.now_s - session.last_ended_s)
        if kv.state is KvState.RUNNING and kv.held_on is not None:
            self._join(turn, kv, kv.held_on, rack)
            return
        self._custody.follow(turn, kv, rack.now_s)
        kv.state = KvState.HELD
        if not self._place(turn, kv, rack):
            self._hold(turn, kv, rack)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Its replica has time for others."""
        self._backlog.remove(turn)
        self._place_held(rack, turn.replica_id)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Keep its KV for the turn after it."""
        session = turn.session
        kv = self._kvs[session.session_id]
        self._backlog.remove(turn)
        self._departures.withdraw(turn)
        self._unhold(turn)
        if turn.replica_id is not None:
            num_output = max(0, session.context_tokens - turn.num_prompt_tokens)
            kv.solo_s += num_output * self._cost.decode_s + self._cost.prefill_s(
                turn.num_expected_cached_tokens, turn.num_prompt_tokens
            )
        if session.num_active_turns == 0:
            if kv.held_on is not None and kv.held_on == turn.replica_id:
                num_blocks = -(-session.context_tokens // self._block)
                self.ledger.set_loose(kv, max(0, num_blocks - kv.held_leaf.end))
                rack.retain(session, kv.held_on)
            kv.state = KvState.IDLE
            kv.lease_until_s = rack.now_s + session.gap.lease_s
            self._foresight.gap_began(session, rack.now_s)
        replica = turn.replica_id
        if replica is not None and not rack.active_turns.loads[replica]:
            self._depart(self._departures.drained(replica), rack)
        self._place_held(rack, replica)

    def session_closed(self, session: Session, rack: Rack) -> None:
        """Its KV is worth nothing any more."""
        kv = self._kvs.pop(session.session_id)
        self._foresight.gap_ended_unseen(session)
        replica = kv.held_on
        self._custody.forget(kv, rack)
        self._place_held(rack, replica)

    def replica_down(self, replica_id: ReplicaId, rack: Rack) -> None:
        """Forget what it held; turns on their way there are held again."""
        self.ledger.used_blocks.close(replica_id)
        self._backlog.close(replica_id)
        self._custody.lose(replica_id, rack.now_s)
        for departure in self._departures.stranded(replica_id):
            turn = departure.turn
            self._backlog.remove(turn)
            kv = self._kvs[turn.session.session_id]
            kv.state = KvState.HELD
            self._hold(turn, kv, rack)
        self._place_held(rack)

    def replica_up(self, replica_id: ReplicaId, rack: Rack) -> None:
        """Plan with it again."""
        self.ledger.used_blocks.open(replica_id)
        self._backlog.open(replica_id)
        self._place_held(rack, replica_id)

    def woken(self, rack: Rack) -> None:
        """Dispatch the turns that waited long enough for KV or a drain; look at those held."""
        self._depart(self._departures.due(rack.now_s), rack)
        self._place_held(rack)

    def check_invariants(self) -> None:
        """Raise if the books contradict themselves. O(sessions + nodes).

        Raises:
            InvariantError: Names what is broken.
        """
        self.ledger.check_invariants(list(self._kvs.values()))
        self._custody.check_invariants(self._kvs.values())

    def _join(self, turn: Turn, kv: SessionKv, replica: ReplicaId, rack: Rack) -> None:
        """Run a turn beside others of its session, which brought its KV to that replica."""
        hashes, num_blocks = self._custody.chain(turn)
        num_shared = self.ledger.tree.num_common(kv.held_leaf, hashes, num_blocks)
        num_own = self._pricing.num_planned_blocks(turn) - num_shared
        self.ledger.set_loose(kv, kv.num_loose_blocks + num_own)
        num_cached = min(num_shared * self._block, turn.num_prompt_tokens - 1)
        self._backlog.add(turn, replica, self._cost.prefill_s(num_cached, turn.num_prompt_tokens))
        self._send(turn, kv, replica, num_cached, rack)

    def _hold(self, turn: Turn, kv: SessionKv, rack: Rack) -> None:
        parent_id = turn.session.parent_id
        parent = None if parent_id is None else self._kvs.get(parent_id)
        weight, due_s = self._urgency.of(turn, kv, parent, rack.now_s)
        if not self._held:
            self._looked_s = rack.now_s
        self._held.add(turn, weight, due_s)

    def _place_held(self, rack: Rack, replica: ReplicaId | None = None) -> None:
        """Place held turns, the first ones first, as far as there are places.

        Args:
            rack: The rack.
            replica: The only one where something has changed; None to look everywhere.
        """
        if not self._held:
            return
        if replica is None:
            self._looked_s = rack.now_s
            self._waits_for.clear()
        is_first = True
        for turn, is_due in self._held.first(self._settings.tries, rack.now_s):
            if self._waits_for.get(turn, replica) != replica:
                continue
            kv = self._kvs[turn.session.session_id]
            if kv.state is KvState.RUNNING and kv.held_on is not None:
                self._unhold(turn)
                self._join(turn, kv, kv.held_on, rack)
                continue
            stuck = is_first and not self._backlog and not any(rack.active_turns.loads)
            candidates = (
                self._pricing.candidates(turn, kv, rack) if replica is None or stuck else (replica,)
            )
            options = self._options(candidates, turn, kv, rack, is_due=is_due or stuck)
            if self._choose(turn, kv, options, rack, is_due=is_due or stuck):
                self._unhold(turn)
            is_first = False

    def _unhold(self, turn: Turn) -> None:
        self._held.remove(turn)
        self._waits_for.pop(turn, None)

    def _place(self, turn: Turn, kv: SessionKv, rack: Rack) -> bool:
        """Run a turn that has just come; return whether it has a place.

        Looks no further than it must: where its KV is, then where least is decoded, then elsewhere.
        """
        pricing = self._pricing
        home = pricing.home(kv)
        options: list[Option] = []
        if home is not None and not rack.shuns(turn, home):
            option = pricing.option(turn, kv, home, rack, is_due=False)
            if option is not None:
                options.append(option)
                if not option.victims and (
                    option.price.seconds <= pricing.elsewhere_s(turn, option.price, kv, rack)
                ):
                    return self._choose(turn, kv, options, rack, is_due=False)
        idle = rack.active_tokens.least()
        seen = {home, idle}
        if idle != home:
            options.extend(self._options((idle,), turn, kv, rack, is_due=False))
        if not (options and options[-1].is_unhindered(idle)):
            others = [r for r in pricing.candidates(turn, kv, rack) if r not in seen]
            options.extend(self._options(others, turn, kv, rack, is_due=False))
        return self._choose(turn, kv, options, rack, is_due=False)

    def _options(
        self,
        candidates: Iterable[ReplicaId],
        turn: Turn,
        kv: SessionKv,
        rack: Rack,
        *,
        is_due: bool,
    ) -> list[Option]:
        """Return the candidates that have a place for a turn, priced."""
        options: list[Option] = []
        for replica in candidates:
            if rack.shuns(turn, replica):
                continue
            option = self._pricing.option(turn, kv, replica, rack, is_due=is_due)
            if option is not None:
                options.append(option)
        return options

    def _choose(
        self, turn: Turn, kv: SessionKv, options: list[Option], rack: Rack, *, is_due: bool
    ) -> bool:
        """Run a turn where it costs least; return whether it has a place."""
        best: Option | None = None
        for option in options:
            if best is None or option.price.seconds < best.price.seconds:
                best = option
        if best is not None and not is_due and not turn.avoid:
            home = self._pricing.home(kv)
            if (
                home is not None
                and home not in [option.price.replica_id for option in options]
                and self._pricing.stay_s(turn, kv, home, rack) < best.price.seconds
            ):
                best = None  # waiting where its KV is costs less than going elsewhere
                self._waits_for[turn] = home
        self._explain(turn, options, best, rack, is_due=is_due)
        if best is None:
            return False
        self._take(turn, kv, best, rack)
        return True

    def _explain(
        self, turn: Turn, options: list[Option], best: Option | None, rack: Rack, *, is_due: bool
    ) -> None:
        """Leave a receipt, if anybody wants one; of turns held again and again, the first."""
        if rack.receipts is None or (best is None and turn in self._held):
            return
        chosen = None if best is None else best.price.replica_id
        priced = tuple(option.price for option in options)
        rack.receipts.append(Receipt(turn.turn_id, chosen, priced, is_due))

    def _take(self, turn: Turn, kv: SessionKv, option: Option, rack: Rack) -> None:
        """Make room, have the KV moved if it is elsewhere, and dispatch the turn."""
        price = option.price
        replica = price.replica_id
        kv.num_pauses += rack.now_s - turn.arrived_s > PAUSE_S
        for victim in option.victims:
            self._custody.drop(victim, rack)
        num_blocks = self._pricing.num_planned_blocks(turn)
        self._custody.settle(kv, kv.leaf, replica, num_blocks - kv.leaf.end, rack)
        kv.state = KvState.RUNNING
        self._backlog.add(turn, replica, price.prefill_s)
        self._send(turn, kv, replica, price.num_cached_tokens, rack)

    def _send(
        self, turn: Turn, kv: SessionKv, replica: ReplicaId, num_cached_tokens: int, rack: Rack
    ) -> None:
        """Dispatch a turn as soon as its KV is there, and a long prefill once nobody decodes there.

        Those who decode beside a prefill hardly get on, and they will soon be done; nobody else is
        sent there meanwhile. It waits no longer than it takes, so for twice as long at worst.
        """
        prefill_s, ready_s = self._backlog.of(turn), kv.ready_s
        drains = prefill_s >= self._settings.drain_s and rack.active_turns.loads[replica] > 0
        if drains:
            ready_s = max(ready_s, rack.now_s + self._settings.drain_share * prefill_s)
        if ready_s <= rack.now_s:
            rack.dispatch(turn, replica, num_cached_tokens=num_cached_tokens)
            return
        departure = Departure(turn, replica, num_cached_tokens, ready_s)
        self._departures.add(departure, is_draining=drains)

    def _depart(self, departures: list[Departure], rack: Rack) -> None:
        """Dispatch turns that have waited long enough, but for those whose KV is not there yet."""
        for departure in departures:
            turn, replica, num_cached_tokens, _ = departure
            ready_s = self._kvs[turn.session.session_id].ready_s
            if ready_s > rack.now_s:
                later = departure._replace(at_s=ready_s)
                self._departures.add(later, is_draining=False)
            else:
                rack.dispatch(turn, replica, num_cached_tokens=num_cached_tokens)
