"""Requests on their way to the queue: those whose KV is loaded from the host first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from hw_model.engine.kv_residency import KvResidency
from hw_model.engine.request import EngineRequest, RequestId, RequestStatus


class RequestLoads:
    """First come, first loaded; a request waits for room in HBM before its load begins.

    What was loaded is retained until the request is admitted, and given up like anything retained.

    Invariant: a request is in one of ``_to_load``, ``_loading`` and ``_loaded``; in the last only
        until it is admitted or aborted.
    """

    __slots__ = ("_loaded", "_loading", "_num_needed_blocks", "_residency", "_to_load")

    def __init__(self, residency: KvResidency) -> None:
        self._residency = residency
        self._num_needed_blocks = 0  # without which the next load can't begin
        self._to_load: deque[tuple[EngineRequest, int]] = deque()
        self._loading: dict[str, EngineRequest] = {}
        self._loaded: dict[str, EngineRequest] = {}

    def __len__(self) -> int:
        """Requests that are not in the queue yet."""
        return len(self._to_load) + len(self._loading)

    def take(self, request: EngineRequest, num_findable_blocks: int, now_s: float) -> bool:
        """Take a new request whose prefix goes on in the host; return whether it is one."""
        if not self._residency.num_loadable(request.block_hashes, num_findable_blocks, now_s):
            return False
        self._to_load.append((request, num_findable_blocks))
        return True

    def arrived(self, keys: Iterable[str], now_s: float) -> Iterator[EngineRequest]:
        """Begin the loads that there is room for; yield the requests that are to be queued.

        Args:
            keys: What the residency took in by now.
            now_s: Now.
        """
        for key in keys:
            request = self._loading.pop(key, None)
            if request is not None:
                self._loaded[key] = request
                yield request
        while self._to_load and not self._residency.lacks_room(self._num_needed_blocks):
            request, num_findable_blocks = self._to_load[0]
            key = _key(request.request_id)
            hashes = request.block_hashes
            ready_s = self._residency.prefetch(key, hashes, num_findable_blocks, now_s)
            if ready_s is None:
                # Decoding takes blocks and frees none, so until then it need not be tried again.
                self._num_needed_blocks = self._residency.num_needed_blocks(
                    hashes, num_findable_blocks, now_s
                )
                return
            self._num_needed_blocks = 0
            self._to_load.popleft()
            if ready_s > now_s:
                self._loading[key] = request
            else:
                self._loaded[key] = request
                yield request

    def release_admitted(self, now_s: float) -> None:
        """Let go of what was loaded for requests that hold it themselves by now, or are gone."""
        if not self._loaded:
            return
        waiting = RequestStatus.WAITING
        for key in [key for key, request in self._loaded.items() if request.status is not waiting]:
            del self._loaded[key]
            self._residency.release(key, now_s)

    def drop(self, request_id: RequestId, now_s: float) -> bool:
        """Forget a request that is not in the queue yet; return whether there was one."""
        key = _key(request_id)
        request = self._loading.pop(key, None)
        if request is not None:
            self._residency.release(key, now_s)
        else:
            taken = next((t for t in self._to_load if t[0].request_id == request_id), None)
            if taken is None:
                return False
            self._to_load.remove(taken)
            self._num_needed_blocks = 0
            request = taken[0]
        request.status = RequestStatus.FINISHED
        return True


def _key(request_id: RequestId) -> str:
    return f"request {request_id}"
