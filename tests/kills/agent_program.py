"""A program of the SDK's that is killed again and again.

    python -m tests.kills.agent_program GATEWAY_URL JOURNAL FOLDER LIFE MODEL

It runs a round of sessions after the other, until FOLDER/stop is there at the end of one. What its
tool does stands in FOLDER/done, with the life in which it was done.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import count
from pathlib import Path

import anyio

from agent_runtime.errors import TurnLimitError
from agent_runtime.sdk import Agent, Patience, Runtime, RuntimeOptions, Session, Tool, ToolContext
from tests.chaos.sim_apis import TOOL_WORD

SESSIONS_A_ROUND = 3
TURNS_A_SESSION = 3
PATIENCE = Patience(num_tries=1_000, first_wait_s=0.1, longest_wait_s=0.5)
CALL = '<tool_call>\n{"name": "work", "arguments": {"item": "it"}}\n</tool_call>'
FORCED = {"structured_outputs": {"choice": [CALL]}, "max_tokens": 60}
"""A model that is random calls no tool by itself; made to, it ends no run."""


class Work:
    """What the tool does, once."""

    def __init__(self, folder: Path, life: int) -> None:
        self._folder, self._life = folder, life

    async def work(self, context: ToolContext, item: str = "") -> str:
        """Do what must not be done twice."""
        await anyio.sleep(0.05)
        told = next(m["content"] for m in reversed(context.session.messages) if m["role"] == "user")
        self.note("done", f"{context.session.session_id} {context.call_id} {told}")
        return f"worked {item}"

    def note(self, file: str, text: str) -> None:
        """Write a line; once this returns, it survives the process."""
        line = json.dumps([self._life, text]).encode() + b"\n"
        handle = os.open(self._folder / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


async def main() -> None:
    """Run rounds."""
    url, journal, folder, life, model = sys.argv[1:]
    work = Work(Path(folder), int(life))
    is_random = model == "tiny"
    agent = Agent(
        "worker",
        "you work",
        [Tool(work.work)],
        max_turns=3 if is_random else 100,
        options=FORCED if is_random else {},
    )
    options = RuntimeOptions(journal=journal, patience=PATIENCE)
    async with Runtime.connect(url, model=model, options=options) as runtime:
        for number in count():
            async with anyio.create_task_group() as tasks:
                for index in range(SESSIONS_A_ROUND):
                    tasks.start_soon(_work, runtime, agent, f"{number}-{index}")
            work.note("rounds", str(number))
            if (Path(folder) / "stop").exists():
                return


async def _work(runtime: Runtime, agent: Agent, name: str) -> None:
    async with runtime.session(agent, session_id=f"agent-{name}") as session:
        for turn in range(TURNS_A_SESSION):
            await _turn(session, f"{TOOL_WORD} turn:agent-{name}:{turn}")


async def _turn(session: Session, told: str) -> None:
    try:
        await session.run(told)
    except TurnLimitError:
        await anyio.sleep(1.0)  # a real engine beside it wants to start


if __name__ == "__main__":
    anyio.run(main)
