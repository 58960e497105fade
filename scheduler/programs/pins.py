"""KV that is kept for sessions in a tool gap, until a time or until somebody lacks the room.

An engine never evicts what is kept to admit a request, so whoever keeps KV must see to it that the
head of the queue gets in: else a replica full of kept KV would stand still for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.ids import ReplicaId
from scheduler.programs.engine_queue import lacking_tokens
from scheduler.programs.ticker import earliest
from scheduler.rack import Rack
from scheduler.session import Session, Turn

LOOK_AGAIN_S = 0.5
"""After a look at a queue whose head got no room, or may get none when it is its turn."""


@dataclass(slots=True)
class Pin:
    """Kept KV.

    Attributes:
        until_s: When it need not be kept any longer; infinite for as long as there is room.
        num_tokens: What it amounts to.
    """

    replica_id: ReplicaId
    until_s: float
    num_tokens: int


class Pins:
    """The pins of all sessions.

    Args:
        order: Of turns in the engines' queues; smaller first.
        victim_key: Of pinned sessions; the largest loses its pin first.

    A pin whose session has a turn again is kept until that turn is prefilled, past its time.
    """

    __slots__ = ("_look_s", "_order", "_pins", "_victim_key")

    def __init__(
        self,
        order: Callable[[Turn], float],
        victim_key: Callable[[Session, float], float],
    ) -> None:
        self._order = order
        self._victim_key = victim_key
        self._pins: dict[Session, Pin] = {}
        self._look_s: float | None = None

    @property
    def next_wake_s(self) -> float | None:
        """When pins are due, or a queue is to be looked at again."""
        times = [
            pin.until_s
            for session, pin in self._pins.items()
            if session.num_active_turns == 0 and pin.until_s < float("inf")
        ]
        return earliest(self._look_s, *times)

    def holds(self, session: Session, now_s: float) -> bool:
        """Return whether a session's KV is kept, and still should be."""
        pin = self._pins.get(session)
        return pin is not None and now_s <= pin.until_s

    def sessions(self, replica_id: ReplicaId) -> list[Session]:
        """Return whose KV is kept on a replica."""
        return [one for one, pin in self._pins.items() if pin.replica_id == replica_id]

    def pin(self, session: Session, replica_id: ReplicaId, until_s: float, rack: Rack) -> None:
        """Keep a session's KV where its turn ended."""
        self._pins[session] = Pin(replica_id, until_s, session.context_tokens)
        rack.retain(session, replica_id)

    def expect(
        self, session: Session, replica_id: ReplicaId, num_tokens: int, until_s: float
    ) -> None:
        """Take note of KV on its way to a replica that will keep it."""
        self._pins[session] = Pin(replica_id, until_s, num_tokens)

    def unpin(self, session: Session, rack: Rack) -> None:
        """Keep it no longer."""
        pin = self._pins.pop(session, None)
        if pin is not None:
            rack.release(session, pin.replica_id)

    def drop(self, session: Session, rack: Rack) -> None:
        """Give up the KV of a session that is over, or better off elsewhere."""
        pin = self._pins.pop(session, None)
        if pin is not None:
            rack.drop(session, pin.replica_id)

    def due(self, now_s: float) -> list[Session]:
        """Return the sessions still away whose time is over."""
        return [
            session
            for session, pin in self._pins.items()
            if session.num_active_turns == 0 and pin.until_s <= now_s
        ]

    def extend(self, session: Session, until_s: float) -> None:
        """Give a pinned session more time."""
        self._pins[session].until_s = until_s

    def look_again(self, rack: Rack) -> None:
        """Look after replicas whose queue may have stood still, if it is time."""
        if self._look_s is not None and self._look_s <= rack.now_s:
            self._look_s = None
            for at in sorted({pin.replica_id for pin in self._pins.values()}):
                self.make_room(at, rack)

    def make_room(self, replica_id: ReplicaId, rack: Rack) -> None:
        """Unpin sessions until the head of a replica's queue has room."""
        pinned = self.sessions(replica_id)
        if not pinned:
            return
        num_kept = sum(
            self._pins[one].num_tokens
            for one in pinned
            if not any(turn.session is one for turn in rack.turns[replica_id])
        )
        head, lacking = lacking_tokens(rack, replica_id, self._order, self._kept_for, num_kept)
        if head is None:
            return
        if self._look_s is None:
            self._look_s = rack.now_s + LOOK_AGAIN_S
        if lacking <= 0:
            return
        pinned.sort(key=lambda one: self._victim_key(one, rack.now_s), reverse=True)
        for session in pinned:
            if session is head.session:
                continue
            lacking -= self._pins[session].num_tokens
            self.unpin(session, rack)
            if lacking <= 0:
                return

    def _kept_for(self, turn: Turn) -> int:
        pin = self._pins.get(turn.session)
        return 0 if pin is None else min(pin.num_tokens, turn.num_prompt_tokens)
