"""What of anyio must be replaced while a loop runs in virtual time.

anyio has no seam for either, so this reaches into its asyncio backend; tests fail when a new anyio
moves what it reaches for.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - part of an event loop
import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
import anyio._backends._asyncio as anyio_asyncio
from typing_extensions import TypeVarTuple, Unpack, override

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


@contextmanager
def anyio_in_virtual_time() -> Iterator[None]:
    """Order cancel scopes by age, and run jobs for worker threads in the running loop's executor.

    ``CancelScope`` keeps children and tasks in sets, which are ordered by address otherwise.
    """
    backend = anyio_asyncio.AsyncIOBackend
    scope, run_in_thread = anyio_asyncio.CancelScope, backend.run_sync_in_worker_thread
    anyio_asyncio.CancelScope = _scopes_by_age()  # type: ignore[misc]
    backend.run_sync_in_worker_thread = _run_inline  # type: ignore[method-assign]
    try:
        yield
    finally:
        anyio_asyncio.CancelScope = scope  # type: ignore[misc]
        backend.run_sync_in_worker_thread = run_in_thread  # type: ignore[method-assign]


async def _run_inline(
    func: Callable[[Unpack[Ts]], T],
    args: tuple[*Ts],
    abandon_on_cancel: bool = False,  # noqa: FBT001, FBT002 - as anyio's
    limiter: Any = None,  # noqa: ANN401 - as anyio's
) -> T:
    await anyio.lowlevel.checkpoint()
    async with contextlib.nullcontext() if limiter is None else limiter:
        with anyio.CancelScope(shield=not abandon_on_cancel):
            result = await asyncio.get_running_loop().run_in_executor(None, func, *args)
    return result


def _scopes_by_age() -> type[anyio_asyncio.CancelScope]:
    """Return a class of cancel scopes whose place in a ``set`` depends on their age alone."""
    ages = itertools.count()

    class ScopeByAge(anyio_asyncio.CancelScope):
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as anyio's
            self._age = next(ages)
            super().__init__(*args, **kwargs)

        @override
        def __hash__(self) -> int:
            return self._age

    return ScopeByAge
