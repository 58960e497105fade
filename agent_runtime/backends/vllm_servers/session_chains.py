"""How a turn is found in what engines have: by its session, or by one that begins alike.

The scheduler asks with the hashes the gateway made of a prompt; what engines have is known by
session. A ``SessionChain`` is the hashes and says whose they are; the index says which known
session a chain has most in common with.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

from typing_extensions import override

from scheduler.ids import SessionId

MAX_ANCHORS = 200_000
"""Beginnings remembered for sessions that begin alike; about 30 MB."""


class SessionChain(Sequence[int]):
    """The block hashes of a session's turn; a slice is one too."""

    __slots__ = ("hashes", "session_id")

    def __init__(self, session_id: SessionId, hashes: tuple[int, ...]) -> None:
        self.session_id = session_id
        self.hashes = hashes

    @override
    def __len__(self) -> int:
        return len(self.hashes)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> SessionChain: ...
    @override
    def __getitem__(self, index: int | slice) -> int | SessionChain:
        if isinstance(index, slice):
            return SessionChain(self.session_id, self.hashes[index])
        return self.hashes[index]

    @override
    def __iter__(self) -> Iterator[int]:
        return iter(self.hashes)


class Likeness(NamedTuple):
    """A known session, and how much of it a chain begins with.

    Attributes:
        session_id: Which.
        num_blocks: That both begin with, in the gateway's count.
        is_whole: Whether that is all that was known of it: the chain goes on from there.
    """

    session_id: SessionId
    num_blocks: int
    is_whole: bool


class ChainIndex:
    """The latest chain of every session.

    Invariant: ``_anchors`` maps hashes at positions 0, 1, 3, 7, ... to who had them last.
    """

    def __init__(self) -> None:
        self._chains: dict[SessionId, tuple[int, ...]] = {}
        self._anchors: OrderedDict[int, SessionId] = OrderedDict()

    def remember(self, chain: SessionChain) -> None:
        """Note that a turn with this chain was sent to an engine."""
        self._chains[chain.session_id] = chain.hashes
        for position in _anchored(chain.hashes):
            anchor = chain.hashes[position]
            self._anchors[anchor] = chain.session_id
            self._anchors.move_to_end(anchor)
        while len(self._anchors) > MAX_ANCHORS:
            self._anchors.popitem(last=False)

    def forget(self, session_id: SessionId) -> None:
        """Forget a session."""
        hashes = self._chains.pop(session_id, ())
        for position in _anchored(hashes):
            if self._anchors.get(hashes[position]) == session_id:
                del self._anchors[hashes[position]]

    def knows(self, session_id: SessionId) -> bool:
        """Return whether a turn of a session was sent, and the session is not forgotten."""
        return session_id in self._chains

    def likeness(self, chain: SessionChain) -> Likeness | None:
        """Return the session's own latest turn, or one that begins much alike. O(log blocks)."""
        own = self._likeness(chain.session_id, chain.hashes)
        if own is not None and own.num_blocks:
            return own
        for position in reversed(_anchored(chain.hashes)):
            other = self._anchors.get(chain.hashes[position])
            if other is not None and other in self._chains:
                return self._likeness(other, chain.hashes)
        return own

    def _likeness(self, session_id: SessionId, hashes: tuple[int, ...]) -> Likeness | None:
        known = self._chains.get(session_id)
        if known is None:
            return None
        low, high = 0, min(len(known), len(hashes))
        while low < high:  # a hash stands for its block and all before it
            middle = (low + high + 1) // 2
            if known[middle - 1] == hashes[middle - 1]:
                low = middle
            else:
                high = middle - 1
        return Likeness(session_id, low, low == len(known))


def _anchored(hashes: Sequence[int]) -> list[int]:
    """Return the positions whose hashes are anchors: 0, 1, 3, 7, ..."""
    return [(1 << power) - 1 for power in range(len(hashes).bit_length())]
