"""What a viewer chose to see, and how keys change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import TypeVar

_T = TypeVar("_T")


class Panel(StrEnum):
    """A part of the screen that can be scrolled."""

    REPLICAS = "replicas"
    WAITING = "waiting"
    DECISIONS = "decisions"


class ReplicaOrder(StrEnum):
    """By what replicas are sorted."""

    NUMBER = "number"
    QUEUE = "queue"
    USED = "KV used"
    ACTIVE = "KV active"


class Key(Enum):
    """What a key means."""

    QUIT = auto()
    SORT = auto()
    FREEZE = auto()
    NEXT_PANEL = auto()
    UP = auto()
    DOWN = auto()
    TOP = auto()


@dataclass(frozen=True, slots=True)
class Look:
    """What is shown.

    Attributes:
        order: Of replicas.
        panel: Which one scrolling is about.
        offsets: Lines that are scrolled past, by panel.
        frozen: Whether the picture stands still.
    """

    order: ReplicaOrder = ReplicaOrder.NUMBER
    panel: Panel = Panel.REPLICAS
    offsets: Mapping[Panel, int] = field(default_factory=lambda: MappingProxyType({}))
    frozen: bool = False

    def offset(self, panel: Panel) -> int:
        """Return how many lines of a panel are scrolled past."""
        return self.offsets.get(panel, 0)

    def after(self, key: Key) -> Look:
        """Return what is shown after a key."""
        match key:
            case Key.SORT:
                sorted_anew = replace(self, order=_after(list(ReplicaOrder), self.order))
                return sorted_anew.scrolled_to(Panel.REPLICAS, 0)
            case Key.FREEZE:
                return replace(self, frozen=not self.frozen)
            case Key.NEXT_PANEL:
                return replace(self, panel=_after(list(Panel), self.panel))
            case Key.UP | Key.DOWN | Key.TOP:
                offset = self.offset(self.panel)
                moved = {Key.UP: max(0, offset - 1), Key.DOWN: offset + 1, Key.TOP: 0}
                return self.scrolled_to(self.panel, moved[key])
            case Key.QUIT:
                return self

    def scrolled_to(self, panel: Panel, offset: int) -> Look:
        """Return the same with a panel scrolled."""
        return replace(self, offsets=MappingProxyType({**self.offsets, panel: offset}))


def _after(values: list[_T], value: _T) -> _T:
    return values[(values.index(value) + 1) % len(values)]
