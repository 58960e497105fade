"""A program of one session and its journal, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio

from agent_runtime.sdk import Agent, Runtime, RuntimeOptions, Session
from agent_runtime.sdk.journal_places import opened_to_read
from agent_runtime.sdk.journaling.stored import stored_steps
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from tests.test_sdk import ScriptedServer

IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made there
Program = Callable[[Runtime], Awaitable[Any]]
NewJournal = Callable[[], AbstractContextManager[str]]


@contextmanager
def fast_folder() -> Iterator[Path]:
    """Make a folder where an fsync costs nothing: a process that ends loses nothing of it."""
    parent = IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@contextmanager
def new_file() -> Iterator[str]:
    """Make room for a journal in a file."""
    with fast_folder() as folder:
        yield str(folder / "fleet.db")


def live(journal: str | Path, server: ScriptedServer, program: Program) -> Any:
    """Run a program once, in virtual time."""

    async def main() -> Any:
        async with Runtime.connect(
            "http://server/v1",
            model="m",
            options=RuntimeOptions(journal=journal),
            transport=StreamingAsgiTransport(server.app),
        ) as runtime:
            return await program(runtime)

    return in_virtual_time(main)


def in_virtual_time(main: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(main, backend_options={"loop_factory": VirtualTimeLoop})


def telling(*texts: str, agent: Agent | None = None, session_id: str = "s") -> Program:
    """Return a program that tells one session some texts, and returns the answers."""

    async def program(runtime: Runtime) -> list[str]:
        async with AsyncExitStack() as stack:
            session: Session = await stack.enter_async_context(
                runtime.session(agent or Agent("a"), session_id=session_id)
            )
            return [(await session.run(text)).text for text in texts]

    return program


def says(*texts: str) -> ScriptedServer:
    return ScriptedServer(*[{"content": text} for text in texts])


def states(journal: str | Path) -> list[tuple[str, str, list[str]]]:
    with opened_to_read(journal) as reader:
        return [
            (
                summary.session_id,
                summary.state.value,
                [step.state.value for step in stored_steps(reader, summary.key)],
            )
            for summary in reader.summaries()
        ]
