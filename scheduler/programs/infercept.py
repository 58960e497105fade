"""InferCept: while a tool runs, KV is kept, given up or swapped out, whichever wastes least memory.

A call that has just begun is taken for short, so its KV is kept; the longer it takes, the longer it
is expected to take, until to compute the context again, or to swap it, wastes less.

Source: InferCept, arXiv 2402.01869 (ICML'24): waste in token-seconds of memory,
``W_discard = T_fwd(C) * C + T_fwd(C) * C_other``, ``W_preserve = T_int * C``,
``W_swap = 2 * T_swap(C) * C_batch``, with ``T_int = now - t_call``. Beside its engine, what is
discarded is cached until it is evicted, and what is swapped was copied when it was computed.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from scheduler.ids import ReplicaId
from scheduler.programs.pins import Pins
from scheduler.rack import Rack
from scheduler.session import Session, Turn
from scheduler.setup import PolicySetup


class Handling(Enum):
    """What becomes of the KV of a session whose tool runs."""

    PRESERVE = "preserve"
    DISCARD = "discard"
    SWAP = "swap"


class Waste(NamedTuple):
    """Memory wasted by each handling, in token-seconds."""

    preserve: float
    discard: float
    swap: float

    @property
    def least(self) -> Handling:
        """Return what wastes least; KV is kept while that costs no more."""
        if self.preserve <= min(self.discard, self.swap):
            return Handling.PRESERVE
        return Handling.DISCARD if self.discard <= self.swap else Handling.SWAP


def waste(
    context_tokens: int, other_tokens: int, call_s: float, forward_s: float, swap_s: float
) -> Waste:
    """Return what a call that lasts ``call_s`` so far wastes.

    Args:
        context_tokens: ``C``.
        other_tokens: Of the batch it would stall, ``C_other`` and ``C_batch``.
        call_s: ``T_int``.
        forward_s: To compute the context again.
        swap_s: To move it one way; infinite without host memory.
    """
    return Waste(
        preserve=call_s * context_tokens,
        discard=forward_s * (context_tokens + other_tokens),
        swap=2 * swap_s * other_tokens if swap_s < float("inf") else float("inf"),
    )


class InferCept:
    """Keeps every session on its replica; a new one goes where the least context is."""

    def __init__(self, setup: PolicySetup) -> None:
        self._cost = setup.cost
        self._has_host_memory = setup.fleet.host_kv_tokens > 0
        self._capacity = setup.fleet.max_context_tokens
        self._pins = Pins(_arrival, _memory_wasted)

    @property
    def next_wake_s(self) -> float | None:
        """When a call wastes so much that its KV is given up, or a queue may stand still."""
        return self._pins.next_wake_s

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Dispatch it; requests keep the place in the queue that their session came in."""
        session = turn.session
        replica = rack.session_tokens.least() if session.home is None else session.home
        rack.dispatch(turn, replica, priority=session.order)
        self._pins.make_room(replica, rack)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Unpin: the turn holds its KV itself now."""
        self._pins.unpin(turn.session, rack)
        if turn.replica_id is not None:
            self._pins.make_room(turn.replica_id, rack)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Keep its KV, until that wastes most."""
        session, replica = turn.session, turn.replica_id
        if replica is None:
            return
        if session.num_active_turns == 0 and not session.closed and session.context_tokens:
            self._pins.pin(session, replica, self._until_s(session, replica, rack), rack)
        self._pins.make_room(replica, rack)

    def session_closed(self, session: Session, rack: Rack) -> None:
        """Give up its KV."""
        self._pins.drop(session, rack)

    def woken(self, rack: Rack) -> None:
        """Weigh again: the batch is another one now."""
        for session in self._pins.due(rack.now_s):
            replica = session.home
            if replica is None:
                continue
            wasted = self._waste(session, replica, rack)
            if wasted.least is Handling.PRESERVE:
                self._pins.extend(session, self._until_s(session, replica, rack))
            elif wasted.least is Handling.SWAP:
                self._pins.drop(session, rack)
            else:
                self._pins.unpin(session, rack)
        self._pins.look_again(rack)

    def _waste(self, session: Session, replica_id: ReplicaId, rack: Rack) -> Waste:
        tokens = session.context_tokens
        return waste(
            tokens,
            min(rack.active_tokens.loads[replica_id], self._capacity),
            rack.now_s - session.last_ended_s,
            self._cost.prefill_s(0, tokens),
            self._cost.transfer.load_s(tokens) if self._has_host_memory else float("inf"),
        )

    def _until_s(self, session: Session, replica_id: ReplicaId, rack: Rack) -> float:
        """Return when to keep the KV begins to waste most, were the batch the same then."""
        wasted = self._waste(session, replica_id, rack)
        call_s = min(wasted.discard, wasted.swap) / session.context_tokens
        return max(session.last_ended_s + call_s, rack.now_s + WEIGH_AGAIN_S)


WEIGH_AGAIN_S = 0.01
"""At least: about an iteration, which is how often the paper weighs."""


def _arrival(turn: Turn) -> float:
    return turn.session.order


def _memory_wasted(session: Session, now_s: float) -> float:
    return (now_s - session.last_ended_s) * session.context_tokens
