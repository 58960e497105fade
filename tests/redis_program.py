"""A program of one session, for tests that kill or stop it.

    python -m tests.redis_program URL

Runs "1", says that it is ready, waits for a line, and runs "late".
"""

from __future__ import annotations

import sys

import anyio

from agent_runtime.errors import JournalError
from agent_runtime.sdk import Agent, Runtime, RuntimeOptions
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from tests.test_sdk import ScriptedServer


async def main() -> None:
    server = ScriptedServer({"content": "one"}, {"content": "late"})
    async with (
        Runtime.connect(
            "http://server/v1",
            model="m",
            options=RuntimeOptions(journal=sys.argv[1]),
            transport=StreamingAsgiTransport(server.app),
        ) as runtime,
        runtime.session(Agent("a"), session_id="s") as session,
    ):
        await session.run("1")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.readline)  # noqa: TID251 - waits for its parent
        await session.run("late")


if __name__ == "__main__":
    try:
        anyio.run(main)
    except JournalError as error:
        sys.stdout.write(f"JournalError: {error}\n")
