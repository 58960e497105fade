"""A fleet of agents with tools, through the SDK on the whole emulated rack, in virtual time.

    python -m benchmarks.sdk.agent_fleet
    python -m benchmarks.sdk.agent_fleet --sessions 100 --turns 30 --stream

Each session is told its task and calls a tool until its last turn; what a tool returns goes into
its context, so every turn's request is longer than the one before.
"""

from __future__ import annotations

import argparse
import resource
import time

import anyio

from agent_runtime.emulated_model.reply_limits import ReplyLength
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_model.tool_use import ToolUse
from agent_runtime.sdk import Agent, Emulation, RunEnded, Runtime, Usage, run_virtual, tool


def agent(num_words: int, num_turns: int) -> Agent:
    """Return who works: a tool's result has so many words."""

    @tool
    async def read_lines(path: str) -> str:
        """Read lines of a file."""
        await anyio.sleep(2.0)
        return path + " line" * num_words

    return Agent(
        "coder", instructions="Be careful. " * 1000, tools=[read_lines], max_turns=num_turns
    )


async def fleet(args: argparse.Namespace, runtime: Runtime) -> list[Usage]:
    """Let all work; return what each used."""
    coder = agent(args.tool_words, args.turns)
    usages: list[Usage] = []

    async def one(number: int) -> None:
        await anyio.sleep(0.1 * number)
        async with runtime.session(coder, session_id=f"coder-{number}") as session:
            num_turns = 0
            if args.stream:
                async for event in session.stream(f"task {number}"):
                    if isinstance(event, RunEnded):
                        num_turns = event.result.num_turns
            else:
                num_turns = (await session.run(f"task {number}")).num_turns
            if num_turns != args.turns:
                raise SystemExit(f"a run took {num_turns} turns, not {args.turns}")
            usages.append(session.usage)

    async with anyio.create_task_group() as tasks:
        for number in range(args.sessions):
            tasks.start_soon(one, number)
    return usages


def main() -> None:
    """Run the fleet and print what it cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--tool-words", type=int, default=700)
    parser.add_argument("--stream", action="store_true")
    args = parser.parse_args()
    always = ToolUse(mean_steps=1e9, max_steps=args.turns - 1, mean_calls=1)
    emulation = Emulation(replies=SeededModel(1, ReplyLength(100), always))

    async def run() -> tuple[list[Usage], float]:
        async with Runtime.emulated(emulation=emulation) as runtime:
            return await fleet(args, runtime), anyio.current_time()

    began_s = time.perf_counter()
    usages, virtual_s = run_virtual(run)
    wall_s = time.perf_counter() - began_s
    total = sum(usages, start=Usage())
    num_turns = args.sessions * args.turns
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{args.sessions} sessions x {args.turns} turns: {wall_s:.1f} s of wall time, "
        f"{wall_s / num_turns * 1e3:.2f} ms a turn; {peak_gb:.2f} GB; {virtual_s:.0f} s of "
        f"virtual time; mean prompt {total.prompt_tokens / num_turns:,.0f} tokens, "
        f"{total.cached_tokens / total.prompt_tokens:.1%} of them found in KV caches"
    )


if __name__ == "__main__":
    main()
