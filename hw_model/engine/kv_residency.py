"""What a replica can do with KV beyond what vLLM does: keep it, give it up, fetch it ahead of time.

Nothing here happens unless somebody asks for it, so an engine that nobody asks equals vLLM's.

* **retain** holds a prefix under a key, so that it is not evicted until it is released. Retained KV
  is given up, longest retained first, before a running request would be preempted for want of it.
* **demote** gives up HBM that nobody holds, once the host has a copy, if there is a host tier.
* **prefetch** loads from the host what HBM lacks of a prefix, and retains it.
* **pull** does so from wherever the caller says, who knows when it arrives.

With a host tier, what is computed is written through to it, and a request whose prefix goes on
there is loaded first, and queued when it has arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hw_model.engine.block_run import BlockTable, PrefixHit
from hw_model.engine.host_tier import HostTier
from hw_model.engine.kv_manager import KvManager
from hw_model.errors import ConfigError


@dataclass(slots=True)
class _Fill:
    """Blocks on their way into HBM; loose in the table until they arrive."""

    ready_s: float
    table: BlockTable
    hashes: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Demotion:
    """HBM to give up once the host has its copy."""

    ready_s: float
    hashes: Sequence[int]
    start: int


class KvResidency:
    """The prefixes of one replica that are held for nobody's request.

    Args:
        kv: The replica's KV in HBM.
        host: Its KV in host memory, if any.
        catch_up: Called with the time before anything is looked at or changed, so that the engine
            has taken what it needs until the end of the step under way, and looks again then.

    Invariant: a key is retained or being filled at most once; fills arrive in HBM at ``settle``.
    """

    __slots__ = (
        "_catch_up",
        "_demotions",
        "_fills",
        "_host",
        "_kv",
        "_retained",
        "num_loaded_blocks",
        "num_pulled_blocks",
    )

    def __init__(
        self, kv: KvManager, host: HostTier | None, catch_up: Callable[[float], None]
    ) -> None:
        self._kv = kv
        self._host = host
        self._catch_up = catch_up
        self.num_loaded_blocks = 0  # from the host
        self.num_pulled_blocks = 0  # from elsewhere
        self._retained: dict[str, BlockTable] = {}  # longest retained first
        self._fills: dict[str, _Fill] = {}
        self._demotions: list[_Demotion] = []
        kv.reclaim = self.give_up_oldest
        if host is not None:
            kv.computed = []

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that ``settle`` never has anything to do."""
        return not self._fills and not self._demotions

    @property
    def next_event_s(self) -> float | None:
        """When ``settle`` next has something to do."""
        due = [fill.ready_s for fill in self._fills.values()]
        due += [demotion.ready_s for demotion in self._demotions]
        return min(due, default=None)

    @property
    def num_retained_blocks(self) -> int:
        """Blocks that are held or on their way; those of shared prefixes count each time."""
        tables = [*self._retained.values(), *(fill.table for fill in self._fills.values())]
        return sum(table.num_blocks for table in tables)

    def tables(self) -> Iterator[BlockTable]:
        """Iterate over all tables that hold blocks, for ``BlockPool.check_invariants``."""
        yield from self._retained.values()
        yield from (fill.table for fill in self._fills.values())

    def retain(self, key: str, hashes: Sequence[int], now_s: float) -> int:
        """Hold what HBM has of a chain's prefix; replaces what the key held.

        Returns:
            Blocks held.
        """
        self._catch_up(now_s)
        hit = self._kv.pool.find_prefix(hashes, len(hashes))
        self._hold(key, hit)
        return hit.num_blocks

    def release(self, key: str, now_s: float) -> bool:
        """Hold it no longer; it stays cached until it is evicted. A fill is called off.

        Returns:
            Whether anything was held.
        """
        self._catch_up(now_s)
        return self._drop(key)

    def demote(self, hashes: Sequence[int], start: int, now_s: float) -> int:
        """Give up the HBM of a chain from block ``start`` on, as far as nobody holds it.

        With a host tier, what it lacks is copied first, and HBM is given up when that is done.

        Returns:
            Blocks given up, or about to be.
        """
        self._catch_up(now_s)
        num_cached = self._kv.pool.find_prefix(hashes, len(hashes)).num_blocks
        if num_cached <= start:
            return 0
        if self._host is None:
            return self._kv.pool.forget(hashes, start)
        parent = hashes[start - 1] if start else None
        ready_s = self._host.store(hashes[start:num_cached], parent, now_s)
        if ready_s > now_s:
            self._demotions.append(_Demotion(ready_s, hashes, start))
            return num_cached - start
        return self._kv.pool.forget(hashes, start)

    def num_loadable(self, hashes: Sequence[int], limit: int, now_s: float) -> int:
        """Return how many blocks the host has beyond what HBM has of ``hashes[:limit]``."""
        if self._host is None:
            return 0
        self._catch_up(now_s)
        return self._num_beyond(self._kv.pool.find_prefix(hashes, limit), hashes, limit, now_s)

    def num_cached(self, hashes: Sequence[int]) -> int:
        """Return how many leading blocks of a chain are in HBM; changes nothing."""
        return self._kv.pool.find_prefix(hashes, len(hashes)).num_blocks

    def num_in_host(self, hashes: Sequence[int]) -> int:
        """Return how many blocks the host has beyond them; changes nothing."""
        if self._host is None:
            return 0
        return self._host.num_held(hashes, self.num_cached(hashes), len(hashes))

    def forget(self, hashes: Sequence[int], now_s: float) -> int:
        """Give up the HBM of a chain that is worth nothing any more, as far as nobody holds it.

        Returns:
            Blocks given up.
        """
        self._catch_up(now_s)
        return self._kv.pool.forget(hashes)

    def lacks_room(self, num_blocks: int) -> bool:
        """Return whether fewer blocks than that are free."""
        return self._kv.pool.num_free < num_blocks

    def num_needed_blocks(self, hashes: Sequence[int], limit: int, now_s: float) -> int:
        """Return how many free blocks ``prefetch`` takes, or takes out of the queue."""
        self._catch_up(now_s)
        hit = self._kv.pool.find_prefix(hashes, limit)
        return hit.num_free + self._num_beyond(hit, hashes, limit, now_s)

    def prefetch(self, key: str, hashes: Sequence[int], limit: int, now_s: float) -> float | None:
        """Load what the host has beyond HBM of ``hashes[:limit]``, and retain the whole.

        Returns:
            When it will be in HBM: ``now_s`` where nothing is to be loaded; None, with nothing
            changed, when HBM has no room.
        """
        self._catch_up(now_s)
        hit = self._kv.pool.find_prefix(hashes, limit)
        start = hit.num_blocks
        num_loadable = self._num_beyond(hit, hashes, limit, now_s)
        if num_loadable == 0 or self._host is None:
            self._hold(key, hit)
            return now_s
        missing = hashes[start : start + num_loadable]
        if not self._begin_fill(key, hit, missing):
            return None
        self.num_loaded_blocks += num_loadable
        ready_s = self._host.load(missing, now_s)
        self._fills[key].ready_s = ready_s
        return ready_s

    def pull(self, key: str, hashes: Sequence[int], ready_s: float, now_s: float) -> bool:
        """Expect what HBM lacks of a chain at ``ready_s``, and retain the whole.

        Returns:
            False, with nothing changed, when HBM has no room.

        Raises:
            ConfigError: Prefix caching is off, so that nothing could be found.
        """
        if not self._kv.enable_prefix_caching:
            raise ConfigError("KV can't be pulled without prefix caching: nothing could find it")
        self._catch_up(now_s)
        hit = self._kv.pool.find_prefix(hashes, len(hashes))
        missing = hashes[hit.num_blocks :]
        if not missing:
            self._hold(key, hit)
            return True
        if not self._begin_fill(key, hit, missing):
            return False
        self.num_pulled_blocks += len(missing)
        self._fills[key].ready_s = ready_s
        return True

    def settle(self, now_s: float) -> list[str]:
        """Take in what has arrived by ``now_s``; return the keys, in order of arrival."""
        arrived = sorted(
            (fill.ready_s, key) for key, fill in self._fills.items() if fill.ready_s <= now_s
        )
        for _, key in arrived:
            fill = self._fills.pop(key)
            self._kv.pool.commit(fill.table, fill.hashes)
            self._retained[key] = fill.table
        due = [demotion for demotion in self._demotions if demotion.ready_s <= now_s]
        for demotion in due:
            self._demotions.remove(demotion)
            self._kv.pool.forget(demotion.hashes, demotion.start)
        return [key for _, key in arrived]

    def write_through(self, now_s: float) -> None:
        """Copy to the host what was computed since the last call."""
        computed = self._kv.computed
        if self._host is None or not computed:
            return
        for hashes, parent_hash in computed:
            self._host.store(hashes, parent_hash, now_s)
        computed.clear()

    def give_up_oldest(self) -> bool:
        """Release what has been retained longest; return whether there was anything."""
        oldest = next(iter(self._retained), None)
        return oldest is not None and self._drop(oldest)

    def check_invariants(self) -> None:
        """Raise if the host tier contradicts itself; HBM is the pool's to check.

        Raises:
            InvariantError: Names what is broken.
        """
        if self._host is not None:
            self._host.check_invariants()

    def _drop(self, key: str) -> bool:
        table = self._retained.pop(key, None)
        if table is None:
            fill = self._fills.pop(key, None)
            table = None if fill is None else fill.table
        if table is None:
            return False
        self._kv.pool.release(table)
        return True

    def _num_beyond(self, hit: PrefixHit, hashes: Sequence[int], limit: int, now_s: float) -> int:
        if self._host is None:
            return 0
        return self._host.num_found(hashes, hit.num_blocks, limit, now_s)

    def _hold(self, key: str, hit: PrefixHit) -> None:
        table = BlockTable(keeps=True)
        self._kv.pool.take_hit(table, hit)
        self._drop(key)
        if hit.num_blocks:
            self._retained[key] = table

    def _begin_fill(self, key: str, hit: PrefixHit, missing: Sequence[int]) -> bool:
        pool = self._kv.pool
        if len(missing) + hit.num_free > pool.num_free:
            return False
        table = BlockTable(keeps=True)
        pool.take_hit(table, hit)
        pool.allocate(table, len(missing))
        self._drop(key)
        self._fills[key] = _Fill(float("inf"), table, missing)
        return True
