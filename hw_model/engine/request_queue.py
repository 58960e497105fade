"""Who is admitted next: vLLM V1's two orders of the waiting queue."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Protocol

from hw_model.engine.request import EngineRequest


class SchedulingPolicy(Enum):
    """vLLM's ``--scheduling-policy``."""

    FCFS = "fcfs"
    PRIORITY = "priority"


class RequestQueue(Protocol):
    """Requests without blocks, in the order in which they are to be admitted."""

    def add(self, request: EngineRequest) -> None:
        """Put a new request where it belongs."""
        ...

    def insert(self, request: EngineRequest) -> None:
        """Put a request before those that arrived after it; at once if there are none."""
        ...

    def prepend(self, request: EngineRequest) -> None:
        """Put a request back that was admitted before."""
        ...

    def peek(self) -> EngineRequest:
        """Return the request to admit next."""
        ...

    def pop(self) -> EngineRequest:
        """Take out the request to admit next."""
        ...

    def remove(self, request: EngineRequest) -> None:
        """Take out any request. O(requests)."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[EngineRequest]: ...


class FcfsQueue:
    """First come, first served; who is put back goes first."""

    __slots__ = ("_requests",)

    def __init__(self) -> None:
        self._requests: deque[EngineRequest] = deque()

    def add(self, request: EngineRequest) -> None:
        """Put a request last."""
        self._requests.append(request)

    def insert(self, request: EngineRequest) -> None:
        """Put a request before the first that arrived after it."""
        requests = self._requests
        place = len(requests)
        if not requests or requests[-1].arrival_order < request.arrival_order:
            requests.append(request)
            return
        for position, other in enumerate(requests):
            if other.arrival_order > request.arrival_order:
                place = position
                break
        requests.insert(place, request)

    def prepend(self, request: EngineRequest) -> None:
        """Put a request first."""
        self._requests.appendleft(request)

    def peek(self) -> EngineRequest:
        """Return the first."""
        return self._requests[0]

    def pop(self) -> EngineRequest:
        """Take out the first."""
        return self._requests.popleft()

    def remove(self, request: EngineRequest) -> None:
        """Take out any request. O(requests)."""
        self._requests.remove(request)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[EngineRequest]:
        return iter(self._requests)


class PriorityQueue:
    """Smallest ``(priority, arrival_order)`` first, whoever was put back.

    Invariant: ``_heap`` is a heap. Arrival orders are unique, so requests themselves are never
        compared.
    """

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, EngineRequest]] = []

    def add(self, request: EngineRequest) -> None:
        """Put a request where its priority belongs."""
        heapq.heappush(self._heap, (request.priority, request.arrival_order, request))

    def insert(self, request: EngineRequest) -> None:
        """Put a request where its priority belongs."""
        self.add(request)

    def prepend(self, request: EngineRequest) -> None:
        """Put a request back where its priority belongs."""
        self.add(request)

    def peek(self) -> EngineRequest:
        """Return the most urgent."""
        return self._heap[0][2]

    def pop(self) -> EngineRequest:
        """Take out the most urgent."""
        return heapq.heappop(self._heap)[2]

    def remove(self, request: EngineRequest) -> None:
        """Take out any request. O(requests)."""
        self._heap.remove((request.priority, request.arrival_order, request))
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[EngineRequest]:
        return (request for _, _, request in sorted(self._heap))


def request_queue(policy: SchedulingPolicy) -> RequestQueue:
    """Return an empty queue in the policy's order."""
    return PriorityQueue() if policy is SchedulingPolicy.PRIORITY else FcfsQueue()
