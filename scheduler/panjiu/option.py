"""One way to run a turn, and what it takes."""

from __future__ import annotations

from typing import NamedTuple

from scheduler.ids import ReplicaId
from scheduler.panjiu.room import Victim
from scheduler.receipt import PricedOption


class Option(NamedTuple):
    """A turn on a replica.

    Attributes:
        price: Where, and what it costs.
        victims: Whose KV is dropped to make room.
    """

    price: PricedOption
    victims: list[Victim]

    def is_unhindered(self, replica_id: ReplicaId) -> bool:
        """Return whether it is on that replica, nobody ahead of it and nobody in its way."""
        price = self.price
        return price.replica_id == replica_id and not price.wait_s and not self.victims
