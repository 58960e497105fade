"""What a target is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One of them.

    Attributes:
        feed: Feeds it; raises what must not be.
        seeds: What it is begun with.
    """

    feed: Callable[[bytes], None]
    seeds: Sequence[bytes]
