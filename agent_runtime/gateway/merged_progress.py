"""Several turns' progress as one stream, in the order in which it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self, TypeAlias

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from agent_runtime.errors import BackendError
from agent_runtime.turns import TurnProgress

Numbered: TypeAlias = tuple[int, TurnProgress]


@asynccontextmanager
async def merged_progress(
    sources: Sequence[AsyncIterator[TurnProgress]], *, live: bool
) -> AsyncIterator[AsyncIterator[Numbered]]:
    """Open the progress of several turns, each step with its turn's number.

    Not to be entered inside an async generator: it may have a task group.

    Args:
        sources: One a turn.
        live: Whether steps are wanted when they come; if not, turns are read one after the other,
            which takes no tasks.

    Raises:
        BackendError: While iterating; a turn is over, and so is the iteration.
    """
    if len(sources) == 1 or not live:
        yield _OneByOne(sources)
        return
    sending, receiving = anyio.create_memory_object_stream[Numbered | BackendError]()
    async with receiving, anyio.create_task_group() as tasks:
        with sending:
            for number, source in enumerate(sources):
                tasks.start_soon(_pass_on, number, source, sending.clone())
        yield _Merged(receiving)
        tasks.cancel_scope.cancel()


class _OneByOne:
    """One turn's steps, then the next one's."""

    __slots__ = ("_number", "_sources")

    def __init__(self, sources: Sequence[AsyncIterator[TurnProgress]]) -> None:
        self._sources = sources
        self._number = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Numbered:
        while self._number < len(self._sources):
            try:
                return self._number, await anext(self._sources[self._number])
            except StopAsyncIteration:
                self._number += 1
        raise StopAsyncIteration


class _Merged:
    """What several tasks pass on."""

    __slots__ = ("_receiving",)

    def __init__(self, receiving: ObjectReceiveStream[Numbered | BackendError]) -> None:
        self._receiving = receiving

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Numbered:
        step = await anext(self._receiving)
        if isinstance(step, BackendError):
            raise step
        return step


async def _pass_on(
    number: int,
    source: AsyncIterator[TurnProgress],
    sending: ObjectSendStream[Numbered | BackendError],
) -> None:
    async with sending:
        try:
            async for step in source:
                await sending.send((number, step))
        except BackendError as error:  # for whoever reads the steps, not for the task group
            await sending.send(error)
