"""Distinct prompt blocks of the turns under way on each replica, shared ones counted once."""

from __future__ import annotations

from scheduler.errors import InvariantError
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.prefix_tree import PrefixNode, PrefixTree
from scheduler.rack import ReplicaFleet
from scheduler.session import Session, Turn


class ActiveBlocks:
    """Blocks that active turns hold, in full blocks of their prompts.

    Blocks whose hashes nobody tells are shared with nobody.

    Cost: O(appended blocks + nodes on the path + replicas) a turn.

    Invariant: the tree has a path for every session that had a turn and is not forgotten, and a
        hold for every turn begun and not ended.
    """

    __slots__ = ("_block_size", "_ends", "_held", "_tree", "_unhashed")

    def __init__(self, fleet: ReplicaFleet) -> None:
        self._block_size = fleet.block_size_tokens
        self._tree = PrefixTree(fleet.num_replicas)
        self._ends: dict[SessionId, PrefixNode] = {}  # of each session's latest prompt
        self._held: dict[TurnId, tuple[PrefixNode, ReplicaId]] = {}
        self._unhashed = [0] * fleet.num_replicas

    def with_turn(self, turn: Turn) -> list[int]:
        """Return how many there would be on each replica if the turn were there."""
        end = self._follow(turn)
        own = turn.num_prompt_tokens // self._block_size
        totals = [
            held + unhashed + own
            for held, unhashed in zip(self._tree.held_blocks, self._unhashed, strict=True)
        ]
        seen: set[ReplicaId] = set()
        node: PrefixNode | None = end
        while node is not None:
            for replica in node.holders.keys() - seen:
                totals[replica] -= node.end
                seen.add(replica)
            node = node.parent
        return totals

    def begin(self, turn: Turn, replica_id: ReplicaId) -> None:
        """Count a turn's blocks on a replica."""
        end = self._ends[turn.session.session_id]
        self._tree.hold(end, replica_id)
        self._held[turn.turn_id] = (end, replica_id)
        self._unhashed[replica_id] += turn.num_prompt_tokens // self._block_size - end.end

    def end(self, turn: Turn) -> None:
        """Count them no longer."""
        end, replica_id = self._held.pop(turn.turn_id)
        self._tree.release(end, replica_id)
        self._unhashed[replica_id] -= turn.num_prompt_tokens // self._block_size - end.end

    def forget(self, session: Session) -> None:
        """Forget a session without active turns."""
        end = self._ends.pop(session.session_id, None)
        if end is not None:
            self._tree.forget(end)

    def check_invariants(self) -> None:
        """Raise if the tree contradicts itself or the turns. O(nodes).

        Raises:
            InvariantError: Names what is broken.
        """
        self._tree.check_invariants(list(self._ends.values()))
        if not self._held and any(self._tree.held_blocks + self._unhashed):
            raise InvariantError("no turn is active, and blocks are")

    @property
    def num_sessions(self) -> int:
        """Sessions whose chains are known."""
        return len(self._ends)

    def _follow(self, turn: Turn) -> PrefixNode:
        """Bring the session's path up to a turn's prompt; return where it ends."""
        session_id = turn.session.session_id
        num_blocks = min(turn.num_prompt_tokens // self._block_size, len(turn.block_hashes))
        before = self._ends.get(session_id, self._tree.root)
        end = self._tree.extend(before, turn.block_hashes, num_blocks)
        self._tree.join(end)
        self._ends[session_id] = end
        return end
