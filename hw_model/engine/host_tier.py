"""KV blocks in a replica's host memory, behind a link.

Every block that is computed is copied to the host when its step ends (write-through, as vLLM's
offloading connector does) and can be found there once the copy is done. The least recently used
block goes first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from hw_model.claim import Band
from hw_model.deployment import Deployment
from hw_model.engine.kv_events import KvEventLog, Medium
from hw_model.errors import ConfigError, InvariantError
from hw_model.transfer import TransferLink


@dataclass(frozen=True, slots=True)
class HostTierSpec:
    """Host memory as a tier of KV.

    Attributes:
        capacity_blocks: KV blocks it holds, >= 1.
        block_bytes: Of one block, on all chips of the replica.
        bytes_per_s: Of the link, each direction, all chips of the replica together.
        latency_s: Of one transfer.
    """

    capacity_blocks: int
    block_bytes: float
    bytes_per_s: float
    latency_s: float = 0.0

    @classmethod
    def of(cls, deployment: Deployment, band: Band, bytes_per_chip: float) -> Self:
        """Return the tier of a deployment's replica.

        Args:
            deployment: The replica; each of its chips moves its own share of the KV.
            band: Which machine within what is known.
            bytes_per_chip: Host memory for KV.

        Raises:
            ConfigError: Too little for one block.
        """
        num_chips = deployment.parallelism.num_chips
        block_bytes = deployment.kv_bytes_per_token * deployment.block_size_tokens
        return cls(
            capacity_blocks=int(bytes_per_chip // block_bytes),
            block_bytes=block_bytes * num_chips,
            bytes_per_s=deployment.chip.host_link_bytes_per_s.at(band) * num_chips,
        )

    def __post_init__(self) -> None:
        if self.capacity_blocks < 1 or self.block_bytes <= 0:
            raise ConfigError(
                f"a host tier of {self.capacity_blocks} blocks of {self.block_bytes:g} bytes holds "
                "nothing: give it one block at least"
            )


class HostTier:
    """The blocks of one replica's host memory, by hash.

    Invariant: at most ``capacity_blocks`` are held, least recently used first.
    """

    __slots__ = ("_blocks", "_on_the_way", "_read", "_spec", "_write", "log", "num_evicted")

    def __init__(self, spec: HostTierSpec, log: KvEventLog | None = None) -> None:
        self._spec = spec
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._on_the_way: deque[tuple[float, tuple[int, ...], int | None]] = deque()
        self._read = TransferLink(spec.bytes_per_s, spec.latency_s)
        self._write = TransferLink(spec.bytes_per_s, spec.latency_s)
        self.log = log
        self.num_evicted = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def store(self, hashes: Sequence[int], parent_hash: int | None, now_s: float) -> float:
        """Copy consecutive blocks of a chain from HBM; return when they can be found here.

        Blocks that are here already are not copied again.
        """
        self.settle(now_s)
        self._touch(block_hash for block_hash in hashes if block_hash in self._blocks)
        done_s = now_s
        for first, some in _missing(hashes, self._blocks):
            done_s = self._write.book(len(some) * self._spec.block_bytes, now_s)
            parent = hashes[first - 1] if first else parent_hash
            self._on_the_way.append((done_s, some, parent))
        return done_s

    def num_found(self, hashes: Sequence[int], start: int, limit: int, now_s: float) -> int:
        """Return how many of ``hashes[start:limit]`` are here without a gap."""
        self.settle(now_s)
        return self.num_held(hashes, start, limit)

    def num_held(self, hashes: Sequence[int], start: int, limit: int) -> int:
        """Return ``num_found`` as of when it was last looked at; changes nothing."""
        position = start
        while position < limit and hashes[position] in self._blocks:
            position += 1
        return position - start

    def load(self, hashes: Sequence[int], now_s: float) -> float:
        """Copy blocks that are here to HBM; return when they have arrived."""
        self._touch(hashes)
        return self._read.book(len(hashes) * self._spec.block_bytes, now_s)

    def load_s(self, num_blocks: int) -> float:
        """Return the seconds to load so many blocks over an idle link."""
        return self._read.duration_s(num_blocks * self._spec.block_bytes)

    def settle(self, now_s: float) -> None:
        """Take in the copies that are done by ``now_s``."""
        while self._on_the_way and self._on_the_way[0][0] <= now_s:
            _, hashes, parent_hash = self._on_the_way.popleft()
            for block_hash in hashes:
                self._blocks[block_hash] = None
                self._blocks.move_to_end(block_hash)
            if self.log is not None:
                self.log.stored(hashes, parent_hash, Medium.CPU)
            self._make_room()

    def check_invariants(self) -> None:
        """Raise if it holds more than it can.

        Raises:
            InvariantError: Names what is broken.
        """
        if len(self._blocks) > self._spec.capacity_blocks:
            raise InvariantError(
                f"host tier: {len(self._blocks)} blocks in room for {self._spec.capacity_blocks}"
            )

    def _touch(self, hashes: Iterable[int]) -> None:
        for block_hash in hashes:
            self._blocks.move_to_end(block_hash)

    def _make_room(self) -> None:
        surplus = len(self._blocks) - self._spec.capacity_blocks
        if surplus <= 0:
            return
        evicted = [self._blocks.popitem(last=False)[0] for _ in range(surplus)]
        self.num_evicted += surplus
        if self.log is not None:
            self.log.removed(evicted, Medium.CPU)


def _missing(
    hashes: Sequence[int], held: OrderedDict[int, None]
) -> list[tuple[int, tuple[int, ...]]]:
    """Return ``(position, hashes)`` of the stretches that are not held."""
    stretches: list[tuple[int, tuple[int, ...]]] = []
    start: int | None = None
    for position, block_hash in enumerate(hashes):
        if block_hash not in held:
            start = position if start is None else start
        elif start is not None:
            stretches.append((start, tuple(hashes[start:position])))
            start = None
    if start is not None:
        stretches.append((start, tuple(hashes[start:])))
    return stretches
