"""Several turns' progress as one stream, in the order in which it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from agent_runtime.errors import BackendError
from agent_runtime.turns import TurnProgress


@asynccontextmanager
async def merged_progress(
    sources: Sequence[AsyncIterator[TurnProgress]],
) -> AsyncIterator[AsyncIterator[tuple[int, TurnProgress]]]:
    """Open the progress of several turns, each with its number.

    Raises:
        BackendError: While iterating; that turn is over, and so is the iteration.
    """
    sending, receiving = anyio.create_memory_object_stream[
        tuple[int, TurnProgress | BackendError]
    ]()
    async with anyio.create_task_group() as tasks, receiving:
        async with sending:
            for number, source in enumerate(sources):
                tasks.start_soon(_pass_on, number, source, sending.clone())
        yield _received(receiving)
        tasks.cancel_scope.cancel()


async def _pass_on(
    number: int,
    source: AsyncIterator[TurnProgress],
    sending: ObjectSendStream[tuple[int, TurnProgress | BackendError]],
) -> None:
    async with sending:
        try:
            async for step in source:
                await sending.send((number, step))
        except BackendError as error:  # raised where the steps are read, not into the task group
            await sending.send((number, error))


async def _received(
    receiving: ObjectReceiveStream[tuple[int, TurnProgress | BackendError]],
) -> AsyncGenerator[tuple[int, TurnProgress], None]:
    async for number, step in receiving:
        if isinstance(step, BackendError):
            raise step
        yield number, step
