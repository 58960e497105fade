"""The seam between values that outlive the process and where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True)
class Change:
    """What becomes of a group of values.

    Attributes:
        drops: Whether all that is in it goes first.
        values: That are put into it then, by name.
        ttl_s: For how long the group is kept from now on.
    """

    drops: bool = False
    values: dict[str, bytes] = field(default_factory=dict)
    ttl_s: float = 0.0

    def then(self, later: Change) -> Change:
        """Return both in one."""
        if later.drops:
            return later
        ttl_s = later.ttl_s if later.values else self.ttl_s
        return Change(self.drops, {**self.values, **later.values}, ttl_s)

    def applied(self, values: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return what becomes of a group's values."""
        return {**({} if self.drops else values), **self.values}

    @property
    def num_bytes(self) -> int:
        """What it takes, about."""
        return 100 + sum(len(value) for value in self.values.values())


class RecordStore(Protocol):
    """Keeps groups of values, each for as long as it was put; blocking, for one thread at a time.

    Raises:
        JournalError: From every method: it can't be reached, read or written; says what to do.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other processes write it too."""
        ...

    def begin_life(self) -> int:
        """Return a number that no other life of a process with this store has."""
        ...

    def write(self, changes: Mapping[str, Change], now_epoch_s: float) -> None:
        """Carry out changes by group, all or none; they are durable when this returns."""
        ...

    def read(self, groups: Sequence[str], now_epoch_s: float) -> list[dict[str, bytes]]:
        """Return the values of groups; nothing of one that is not there."""
        ...

    def names(self, prefix: str, now_epoch_s: float) -> list[str]:
        """Return the groups whose names begin so."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...
