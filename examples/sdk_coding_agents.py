"""A fleet of coding agents on Panjiu's own SDK.

    panjiu run examples/sdk_coding_agents.py --virtual --seed 1
    panjiu run examples/sdk_coding_agents.py --virtual -- --agents 300 --tasks 3
    panjiu run examples/sdk_coding_agents.py --speed 50 -- --agents 4 --tasks 1

Tools take as long as coding agents' tools do (TraceLab: 61 % under 1 s, 27 % to 10 s, 8 % to a
minute, 4 % longer).
"""

import argparse
import random

import anyio
from pydantic import BaseModel

from agent_runtime.sdk import Agent, Runtime, Usage, tool

GAPS_S = ((0.61, 0.05, 1), (0.27, 1, 10), (0.08, 10, 60), (0.04, 60, 300))


async def take_a_while() -> None:
    """Sleep as long as a tool takes."""
    _, low, high = random.choices(GAPS_S, [share for share, _, _ in GAPS_S])[0]
    await anyio.sleep(low * (high / low) ** random.random())


@tool
async def read_file(path: str, first_line: int = 1) -> str:
    """Read a file of the repository."""
    await take_a_while()
    return f"{path} from line {first_line}:\n" + "value = compute(value)\n" * 150


@tool
async def edit_file(path: str, old: str, new: str) -> str:
    """Replace a text in a file."""
    await take_a_while()
    return f"{path}: replaced {len(old)} characters by {len(new)}"


@tool(timeout_s=120)
async def run_tests(pattern: str = "") -> dict[str, int]:
    """Run the tests whose names match."""
    await take_a_while()
    return {"passed": len(pattern) + 40, "failed": 0}


class Verdict(BaseModel):
    """How a task ended."""

    solved: bool
    files_changed: int


CODER = Agent(
    "coder",
    instructions="You are a careful engineer.\n" + "Small steps, clear names, honest tests. " * 900,
    tools=[read_file, edit_file, run_tests],
)


async def work(runtime: Runtime, number: int, num_tasks: int) -> tuple[Usage, bool]:
    """Let one agent do its tasks; return what it used, and whether it thinks they are solved."""
    async with runtime.session(CODER, session_id=f"coder-{number:03d}") as session:
        for task in range(num_tasks):
            await session.run(f"Issue {number}.{task}: find out why the numbers differ.")
        verdict = await session.run("Was it solved?", output=Verdict)
        return session.usage, verdict.output.solved


async def main() -> None:
    """Run the fleet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=2)
    args = parser.parse_args()
    ended: list[tuple[Usage, bool]] = []
    began_s = anyio.current_time()

    async def agent(number: int) -> None:
        await anyio.sleep(random.uniform(0, 30))
        ended.append(await work(runtime, number, args.tasks))

    async with Runtime.connect() as runtime, anyio.create_task_group() as agents:
        for number in range(args.agents):
            agents.start_soon(agent, number)
    total = sum((usage for usage, _ in ended), start=Usage())
    num_solved = sum(solved for _, solved in ended)
    print(
        f"{args.agents} agents, {num_solved} content: {total.prompt_tokens:,} prompt tokens, "
        f"{total.cached_tokens / total.prompt_tokens:.1%} of them found in KV caches, "
        f"{total.output_tokens:,} generated, {anyio.current_time() - began_s:.0f} s"
    )


if __name__ == "__main__":
    anyio.run(main)
