"""What a replica's prefix cache gained and lost, as vLLM reports it.

Recording is off unless a log is given: a simulation that nobody listens to pays nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class Medium(StrEnum):
    """Where a block lies, in vLLM's words."""

    GPU = "GPU"
    CPU = "CPU"


@dataclass(frozen=True, slots=True)
class BlocksStored:
    """Consecutive blocks of one chain became findable.

    A block that two requests compute at once is reported by both.

    Attributes:
        hashes: Chained hashes, in order.
        parent_hash: Of the block before the first; None at the start of a chain.
        owner: The request that computed them, if one did.
        start: Position in its chain of the first of them.
    """

    hashes: tuple[int, ...]
    parent_hash: int | None
    medium: Medium = Medium.GPU
    owner: str | None = field(default=None, compare=False)
    start: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class BlocksRemoved:
    """Copies of blocks were given up; a younger copy of the same block may remain."""

    hashes: tuple[int, ...]
    medium: Medium = Medium.GPU


@dataclass(frozen=True, slots=True)
class AllBlocksCleared:
    """The whole prefix cache was emptied."""


KvEvent: TypeAlias = BlocksStored | BlocksRemoved | AllBlocksCleared


class KvEventLog:
    """Events since they were last taken, in order."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events: list[KvEvent] = []

    def stored(
        self, hashes: Sequence[int], parent_hash: int | None, medium: Medium = Medium.GPU
    ) -> None:
        """Note blocks that became findable."""
        self._events.append(BlocksStored(tuple(hashes), parent_hash, medium))

    def computed(
        self, hashes: Sequence[int], parent_hash: int | None, owner: str | None, start: int
    ) -> None:
        """Note blocks of HBM that became findable, whose they are and where in their chain."""
        self._events.append(
            BlocksStored(tuple(hashes), parent_hash, Medium.GPU, owner=owner, start=start)
        )

    def removed(self, hashes: Sequence[int], medium: Medium = Medium.GPU) -> None:
        """Note blocks given up, in the order in which they were."""
        self._events.append(BlocksRemoved(tuple(hashes), medium))

    def cleared(self) -> None:
        """Note that nothing is left."""
        self._events.append(AllBlocksCleared())

    def take(self) -> list[KvEvent]:
        """Return all events and forget them."""
        events, self._events = self._events, []
        return events
