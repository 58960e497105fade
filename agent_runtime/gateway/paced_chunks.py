"""Chunks of a real model, held back until the emulated rack has generated as many tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Any, Self, TypeAlias

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from agent_runtime.errors import BackendError
from agent_runtime.turns import RunningTurn, TurnProgress

Chunk: TypeAlias = dict[str, Any]


class _Ended(Enum):
    UPSTREAM = auto()
    TURN = auto()


Item: TypeAlias = Chunk | TurnProgress | BackendError | _Ended


class Pacer:
    """Which chunks may go.

    Invariant: chunks leave in the order in which they came, each when the rack has generated as
        many tokens as they have in all; those after the rack's last token leave at once.
    """

    def __init__(self) -> None:
        self.num_tokens = 0  # in the chunks so far
        self.late_s = 0.0
        self._held: deque[tuple[int, Chunk]] = deque()
        self._num_released = 0
        self._released_at_s: deque[tuple[int, float]] = deque()  # tokens no chunk has come for yet
        self._rack_is_done = False

    def add(self, chunk: Chunk, num_tokens: int, now_s: float) -> None:
        """Take in a chunk that holds so many tokens."""
        self.num_tokens += num_tokens
        self._held.append((self.num_tokens, chunk))
        while self._released_at_s and self._released_at_s[0][0] <= self.num_tokens:
            _, at_s = self._released_at_s.popleft()
            if num_tokens:
                self.late_s = max(self.late_s, now_s - at_s)

    def release(self, num_tokens: int, now_s: float) -> None:
        """Let so many more tokens go."""
        self._num_released += num_tokens
        if self._num_released > self.num_tokens:
            self._released_at_s.append((self._num_released, now_s))

    def end(self) -> None:
        """Let everything go: the rack has generated its last token."""
        self._rack_is_done = True

    def next_chunk(self) -> Chunk | None:
        """Return the next chunk that may go, or None."""
        if self._held and (self._rack_is_done or self._held[0][0] <= self._num_released):
            # A chunk without tokens, such as the one with the role, goes with the token after it.
            tokens_before = self._held[0][0]
            if tokens_before or self._num_released or self._rack_is_done:
                return self._held.popleft()[1]
        return None


@asynccontextmanager
async def paced_chunks(
    chunks: AsyncIterator[Chunk],
    turn: RunningTurn,
    pacer: Pacer,
    now_s: Callable[[], float],
) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Open the chunks at the turn's pace; the turn ends with the last of them.

    Not to be entered inside an async generator: it has a task group.

    Args:
        chunks: As the real model sends them.
        turn: On the rack, asked for the most tokens there may be.
        pacer: Fresh.
        now_s: The clock that lateness is told on.
    """
    sending, receiving = anyio.create_memory_object_stream[Item](float("inf"))
    async with sending, receiving, anyio.create_task_group() as tasks:
        tasks.start_soon(_pass_on, chunks, sending.clone(), _Ended.UPSTREAM)
        tasks.start_soon(_pass_on, turn, sending.clone(), _Ended.TURN)
        yield _PacedChunks(receiving, turn, pacer, now_s)
        tasks.cancel_scope.cancel()


class _PacedChunks:
    def __init__(
        self,
        items: ObjectReceiveStream[Item],
        turn: RunningTurn,
        pacer: Pacer,
        now_s: Callable[[], float],
    ) -> None:
        self._items = items
        self._turn = turn
        self._pacer = pacer
        self._now_s = now_s
        self._running = set(_Ended)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while True:
            chunk = self._pacer.next_chunk()
            if chunk is not None:
                return chunk
            if not self._running:
                raise StopAsyncIteration
            self._take(await anext(self._items))

    def _take(self, item: Item) -> None:
        if isinstance(item, BackendError):
            raise item
        if isinstance(item, TurnProgress):
            self._pacer.release(item.num_new_tokens, self._now_s())
        elif isinstance(item, _Ended):
            self._running.discard(item)
            if item is _Ended.UPSTREAM:
                self._turn.end_output(max(1, self._pacer.num_tokens))
            else:
                self._pacer.end()
        else:
            num_tokens = total_tokens(item, self._pacer.num_tokens) - self._pacer.num_tokens
            self._pacer.add(item, num_tokens, self._now_s())


async def _pass_on(
    source: AsyncIterator[Chunk] | RunningTurn, sending: ObjectSendStream[Item], end: _Ended
) -> None:
    async with sending:
        try:
            async for item in source:
                await sending.send(item)
            await sending.send(end)
        except BackendError as error:  # for whoever reads the chunks, not for the task group
            await sending.send(error)


def total_tokens(chunk: Chunk, num_before: int) -> int:
    """Return how many tokens there are with this chunk: as it says, or else one more if it speaks.

    Args:
        chunk: As a server sends it; ``continuous_usage_stats`` has each say how many there are.
        num_before: How many there were.
    """
    usage = chunk.get("usage")
    told = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if isinstance(told, int):
        return max(num_before, told)
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        if any(delta.get(key) for key in _SPOKEN):
            return num_before + 1
    return num_before


_SPOKEN = ("content", "tool_calls", "reasoning", "reasoning_content")
