"""One way to run a turn, and what it takes."""

from __future__ import annotations

from typing import NamedTuple

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
