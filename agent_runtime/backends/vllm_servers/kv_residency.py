"""Which blocks lie on which engine, and where sessions end among them: a tree built of KV events.

Engines name blocks by hashes of their own, which other engines don't share; so a block is known
here by a hash of its tokens and all before it. Events of a request with a session id tell where
that session's context ends; what leads there is its path. How many tokens of a session lie on an
engine is then exact, without a tokeniser: those of the path's leading blocks that are there.

Source: vLLM 0.32, ``vllm/v1/core/block_pool.py``; a prompt finds blocks from its first one on, up
to the first that is missing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from agent_runtime.backends.kv_event_wire import (
    AllCleared,
    BlockRemoved,
    BlockStored,
    WireEvent,
    WireHash,
)
from agent_runtime.errors import InternalError, WireFormatError
from scheduler.ids import ReplicaId, SessionId

FULL_ATTENTION = frozenset({None, "full_attention", "mla_attention", "sink_full_attention"})
"""KV groups whose blocks a prefix needs all of; what others keep beside them is of no interest."""


class BlockNode:
    """A block after its prefix.

    Invariant: ``end_tokens`` counts its own tokens and all before it; bit ``r`` of ``in_hbm`` and
        ``in_host`` says whether replica ``r`` has it; it is in the tree as long as a replica has
        it, a node follows it, or a session that is wanted ends at it; ``sessions`` are those that
        end at it, None for none.
    """

    __slots__ = ("end_tokens", "in_hbm", "in_host", "key", "num_children", "parent", "sessions")

    def __init__(self, key: bytes, parent: BlockNode | None, end_tokens: int) -> None:
        self.key = key
        self.parent = parent
        self.end_tokens = end_tokens
        self.in_hbm = 0
        self.in_host = 0
        self.num_children = 0
        self.sessions: set[SessionId] | None = None


class _Copies:
    """A block on one engine: requests that compute the same block at once store it twice."""

    __slots__ = ("node", "num_in_hbm", "num_in_host")

    def __init__(self, node: BlockNode) -> None:
        self.node = node
        self.num_in_hbm = 0
        self.num_in_host = 0


@dataclass(frozen=True, slots=True)
class ResidencyStats:
    """How large the tree is.

    Attributes:
        num_blocks: Nodes.
        num_sessions: With a known end.
        num_unplaced: Blocks whose predecessor was never told of, and which are not counted.
    """

    num_blocks: int
    num_sessions: int
    num_unplaced: int


class KvResidency:
    """The tree of all engines.

    Args:
        num_replicas: Engines there may be.
        is_wanted: Returns whether a session's end is to be known though no engine has its blocks:
            whether it will be forgotten. Events name others, too: sessions that were forgotten just
            before, or never came this way. Those are known for as long as an engine has of them.

    Invariant: ``_by_hash[r]`` has the blocks that replica ``r`` has a copy of at least, as told by
        the bits of their nodes.
    """

    def __init__(
        self, num_replicas: int, is_wanted: Callable[[SessionId], bool] = lambda _: True
    ) -> None:
        self._is_wanted = is_wanted
        self._root = BlockNode(b"", None, 0)
        self._nodes: dict[bytes, BlockNode] = {}
        self._by_hash: list[dict[WireHash, _Copies]] = [{} for _ in range(num_replicas)]
        self._groups: list[int | None] = [None] * num_replicas
        self._ends: dict[SessionId, BlockNode] = {}
        self._paths: dict[SessionId, list[BlockNode]] = {}
        self._num_unplaced = 0

    def apply(self, replica_id: ReplicaId, events: Iterable[WireEvent]) -> None:
        """Take in what an engine published.

        Raises:
            WireFormatError: Blocks that don't have as many tokens as they should.
        """
        for event in events:
            match event:
                case BlockStored():
                    self._store(replica_id, event)
                case BlockRemoved():
                    self._remove(replica_id, event)
                case AllCleared():
                    self.clear(replica_id)

    def clear(self, replica_id: ReplicaId) -> None:
        """Take in that nothing is known of an engine any more, or that it is empty."""
        bit = 1 << replica_id
        by_hash = self._by_hash[replica_id]
        self._by_hash[replica_id] = {}
        for copies in by_hash.values():
            node = copies.node
            node.in_hbm &= ~bit
            node.in_host &= ~bit
            self._prune(node)

    def forget(self, session_id: SessionId) -> None:
        """Forget where a session ends."""
        self._paths.pop(session_id, None)
        end = self._ends.pop(session_id, None)
        if end is not None:
            _end_no_more(session_id, end)
            self._prune(end)

    def knows(self, session_id: SessionId) -> bool:
        """Return whether it is known where a session ends."""
        return session_id in self._ends

    def num_cached_tokens(
        self, replica_id: ReplicaId, session_id: SessionId, limit_tokens: float = float("inf")
    ) -> int:
        """Return how many leading tokens of a session's context an engine has in its HBM.

        Args:
            replica_id: Which engine.
            session_id: Whose context.
            limit_tokens: How many of them are still wanted.
        """
        bit, found = 1 << replica_id, 0
        for node in self._path(session_id):
            if not node.in_hbm & bit or node.end_tokens > limit_tokens:
                break
            found = node.end_tokens
        return found

    def num_host_tokens(
        self, replica_id: ReplicaId, session_id: SessionId, limit_tokens: float = float("inf")
    ) -> int:
        """Return how many tokens follow those in HBM and are in the host's memory."""
        bit, in_hbm, found = 1 << replica_id, 0, 0
        for node in self._path(session_id):
            if node.end_tokens > limit_tokens:
                break
            if node.in_hbm & bit and found == in_hbm:
                in_hbm = found = node.end_tokens
            elif node.in_host & bit:
                found = node.end_tokens
            else:
                break
        return found - in_hbm

    def num_blocks(self, replica_id: ReplicaId) -> int:
        """Return how many blocks an engine has, wherever."""
        return len(self._by_hash[replica_id])

    def stats(self) -> ResidencyStats:
        """Return how large the tree is."""
        return ResidencyStats(len(self._nodes), len(self._ends), self._num_unplaced)

    def check_invariants(self) -> None:
        """Raise if the tree contradicts itself. O(blocks).

        Raises:
            InternalError: Names what is broken.
        """
        children: dict[bytes, int] = {}
        for node in self._nodes.values():
            parent = node.parent
            if parent is None or (parent is not self._root and parent.key not in self._nodes):
                raise InternalError(f"block {node.key.hex()} follows one that is not there")
            children[parent.key] = children.get(parent.key, 0) + 1
            if not (node.in_hbm or node.in_host or node.num_children or node.sessions):
                raise InternalError(f"block {node.key.hex()} is of no use to anybody")
        for node in self._nodes.values():
            if children.get(node.key, 0) != node.num_children:
                raise InternalError(f"block {node.key.hex()} counts its children wrong")
        for replica, by_hash in enumerate(self._by_hash):
            bit = 1 << replica
            for copies in by_hash.values():
                node = copies.node
                told = bool(node.in_hbm & bit), bool(node.in_host & bit)
                if told == (copies.num_in_hbm > 0, copies.num_in_host > 0) and any(told):
                    continue
                raise InternalError(f"replica {replica} names blocks that it does not have")

    def _store(self, replica_id: ReplicaId, event: BlockStored) -> None:
        if not self._counts(replica_id, event):
            return
        by_hash = self._by_hash[replica_id]
        parent: BlockNode | None = self._root
        if event.parent_block_hash is not None:
            above = by_hash.get(event.parent_block_hash)
            parent = None if above is None else above.node
        if parent is None:
            self._num_unplaced += len(event.block_hashes)
            return
        size, tokens = event.block_size, event.token_ids
        if tokens and len(tokens) != size * len(event.block_hashes):
            raise WireFormatError(
                f"{len(event.block_hashes)} blocks of {size} tokens came with {len(tokens)} tokens"
            )
        for index, block_hash in enumerate(event.block_hashes):
            content = _content(event, index, block_hash, tokens[index * size : (index + 1) * size])
            parent = self._child(parent, content, size)
            self._name(replica_id, block_hash, parent, in_host=event.medium == "CPU")
        if event.session_id is not None:
            self._end_at(SessionId(event.session_id), parent)

    def _name(
        self, replica_id: ReplicaId, block_hash: WireHash, node: BlockNode, *, in_host: bool
    ) -> None:
        """Note that a replica has a block, under a hash; of two for the same, the first counts."""
        bit, by_hash = 1 << replica_id, self._by_hash[replica_id]
        copies = by_hash.get(block_hash)
        known = copies is not None and copies.node is node
        has_another_name = not known and bool((node.in_hbm | node.in_host) & bit)
        if not has_another_name and in_host:
            node.in_host |= bit
        elif not has_another_name:
            node.in_hbm |= bit
        if copies is not None and not known:  # the hash meant another block before
            self._lose(replica_id, block_hash, copies.node)
        if has_another_name:
            return
        if copies is None or not known:
            copies = by_hash[block_hash] = _Copies(node)
        if in_host:
            copies.num_in_host += 1
        else:
            copies.num_in_hbm += 1

    def _counts(self, replica_id: ReplicaId, event: BlockStored) -> bool:
        """Return whether an event tells of blocks that prefixes are found by."""
        if event.kv_cache_spec_kind not in FULL_ATTENTION or event.locality == "REMOTE":
            return False
        if event.medium not in {None, "GPU", "CPU"}:
            return False
        if event.group_idx is not None and self._groups[replica_id] is None:
            self._groups[replica_id] = event.group_idx
        return event.group_idx is None or event.group_idx == self._groups[replica_id]

    def _remove(self, replica_id: ReplicaId, event: BlockRemoved) -> None:
        group = self._groups[replica_id]
        if event.group_idx is not None and group is not None and event.group_idx != group:
            return
        if event.medium not in {None, "GPU", "CPU"} or event.locality == "REMOTE":
            return
        bit, by_hash = 1 << replica_id, self._by_hash[replica_id]
        for block_hash in event.block_hashes:
            copies = by_hash.get(block_hash)
            if copies is None:
                continue  # stored before anybody listened
            node = copies.node
            if event.medium == "CPU":
                copies.num_in_host = max(0, copies.num_in_host - 1)
            else:
                copies.num_in_hbm = max(0, copies.num_in_hbm - 1)
            if not copies.num_in_host:
                node.in_host &= ~bit
            if not copies.num_in_hbm:
                node.in_hbm &= ~bit
            if not (node.in_hbm | node.in_host) & bit:
                self._lose(replica_id, block_hash, node)

    def _lose(self, replica_id: ReplicaId, block_hash: WireHash, node: BlockNode) -> None:
        """Note that a replica has no copy of a block any more."""
        bit = 1 << replica_id
        node.in_hbm &= ~bit
        node.in_host &= ~bit
        del self._by_hash[replica_id][block_hash]
        self._prune(node)

    def _child(self, parent: BlockNode, content: bytes, num_tokens: int) -> BlockNode:
        key = blake2b(parent.key + content, digest_size=16).digest()
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = BlockNode(key, parent, parent.end_tokens + num_tokens)
            parent.num_children += 1
        return node

    def _end_at(self, session_id: SessionId, node: BlockNode) -> None:
        before = self._ends.get(session_id)
        if before is node or node is self._root:
            return
        _end_at(session_id, node)
        self._ends[session_id] = node
        path = self._paths.get(session_id)
        if path is not None:
            self._paths[session_id] = _extended(path, node)
        if before is not None:
            _end_no_more(session_id, before)
            self._prune(before)

    def _path(self, session_id: SessionId) -> Sequence[BlockNode]:
        path = self._paths.get(session_id)
        if path is None:
            end = self._ends.get(session_id)
            if end is None:
                return ()
            path = self._paths[session_id] = _extended([], end)
        return path

    def _prune(self, node: BlockNode) -> None:
        """Take a node nobody needs out of the tree, and what then leads nowhere."""
        at = node
        while at.parent is not None and not (at.in_hbm or at.in_host or at.num_children):
            if self._nodes.get(at.key) is not at:
                return
            if at.sessions and not self._end_before(at, at.parent, at.sessions):
                return
            del self._nodes[at.key]
            at.parent.num_children -= 1
            at = at.parent

    def _end_before(self, node: BlockNode, parent: BlockNode, ending: set[SessionId]) -> bool:
        """Have sessions that end at a node end before it; return False if one is wanted there."""
        if any(map(self._is_wanted, ending)):
            return False
        node.sessions = None
        for session_id in ending:
            self._paths.pop(session_id, None)
            if parent is self._root:
                del self._ends[session_id]
            else:
                _end_at(session_id, parent)
                self._ends[session_id] = parent
        return True


def _end_at(session_id: SessionId, node: BlockNode) -> None:
    if node.sessions is None:
        node.sessions = set()
    node.sessions.add(session_id)


def _end_no_more(session_id: SessionId, node: BlockNode) -> None:
    if node.sessions is not None:
        node.sessions.discard(session_id)
        if not node.sessions:
            node.sessions = None


def _extended(path: list[BlockNode], end: BlockNode) -> list[BlockNode]:
    """Return the path to ``end``; O(new nodes) where it goes on from where ``path`` ends."""
    new: list[BlockNode] = []
    last = path[-1] if path else None
    node: BlockNode | None = end
    while node is not None and node.parent is not None and node is not last:
        new.append(node)
        node = node.parent
    new.reverse()
    if last is not None and node is last:
        path.extend(new)
        return path
    return new


def _content(event: BlockStored, index: int, block_hash: WireHash, tokens: Sequence[int]) -> bytes:
    """Return what tells a block from others after the same prefix, the same on every engine."""
    if not tokens:  # an emulated engine's; their hashes are the same on all of them
        return b"hash" + repr(block_hash).encode()
    content = array("q", tokens).tobytes()
    extra: Any = None
    if event.extra_keys is not None and index < len(event.extra_keys):
        extra = event.extra_keys[index]
    if extra is not None or event.lora_name is not None:
        content += repr((event.lora_name, extra)).encode()
    return content
