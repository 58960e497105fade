"""The seam to where engines publish their KV events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, TypeAlias

from agent_runtime.backends.vllm_servers.engine_facts import EventSource


class EventLine(Protocol):
    """Messages, one after the other."""

    async def received(self) -> list[bytes]:
        """Return the next message's frames."""
        ...


class EventLines(Protocol):
    """How one engine's events are come by."""

    def subscribed(self, source: EventSource) -> AbstractContextManager[EventLine]:
        """Have what it publishes from now on; some of it may get lost.

        Raises:
            BackendError: On entry; the endpoint can't be one.
        """
        ...

    def replayed(self, endpoint: str, first: int) -> AbstractContextManager[EventLine]:
        """Have it repeat its batches from a number on, and then an end of the replay.

        Raises:
            BackendError: On entry; the endpoint can't be one.
        """
        ...


OpenEventLines: TypeAlias = Callable[[], AbstractAsyncContextManager[EventLines]]
"""Has lines until the context is left; raises ``ConfigError`` where a package is missing."""
