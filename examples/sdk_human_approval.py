"""Agents that ask people before they act: gaps of minutes to hours, which the scheduler is told of.

    panjiu run examples/sdk_human_approval.py --virtual --seed 1
    panjiu run examples/sdk_human_approval.py --virtual -- --agents 100 --hours 8

Who knows how long something takes should say so: the KV of a session that waits for a person makes
room for others, and is computed again when the answer comes. One that nobody answers is given up.
"""

import argparse
import random

import anyio

from agent_runtime.errors import BudgetExceededError
from agent_runtime.sdk import Agent, Budget, Runtime, ToolContext, tool

MINUTE_S, HOUR_S = 60.0, 3600.0


@tool(expected_s=3)
async def inspect(system: str) -> str:
    """Look at a system."""
    await anyio.sleep(random.uniform(0.5, 6))
    return f"{system}: " + "a line of its log; " * 300


@tool
async def ask_for_approval(action: str, context: ToolContext) -> str:
    """Ask a person whether to do something; call it before you change anything."""
    waits_s = random.lognormvariate(0, 1) * 20 * MINUTE_S
    await context.expect(20 * MINUTE_S)  # what it usually takes
    steps = 4
    for step in range(1, steps + 1):
        await anyio.sleep(waits_s / steps)
        if step < steps:
            await context.progress(step / steps)  # e.g. seen, read, half through
    verdict = random.choice(["approved", "approved", "approved", "denied: too risky"])
    return f"{action[:80]}: {verdict}"


OPERATOR = Agent(
    "operator",
    instructions="You repair systems, and ask before you act.\n" + "A rule of the house. " * 4000,
    tools=[inspect, ask_for_approval],
)


async def main() -> None:
    """Let all operators work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--hours", type=float, default=2.0, help="after which one is given up")
    args = parser.parse_args()
    done, given_up, waited_s = 0, 0, 0.0

    async def one(number: int) -> None:
        nonlocal done, given_up, waited_s
        await anyio.sleep(random.uniform(0, 10 * MINUTE_S))
        began_s = anyio.current_time()
        budget = Budget(seconds=args.hours * HOUR_S)
        async with runtime.session(
            OPERATOR, session_id=f"operator-{number:03d}", budget=budget
        ) as session:
            try:
                await session.run(f"System {number} is slow. Find out why and repair it.")
                done += 1
            except BudgetExceededError:
                given_up += 1
        waited_s += anyio.current_time() - began_s

    async with Runtime.connect() as runtime, anyio.create_task_group() as tasks:
        for number in range(args.agents):
            tasks.start_soon(one, number)
    print(
        f"{args.agents} operators: {done} done, {given_up} given up, "
        f"{waited_s / args.agents / MINUTE_S:.0f} min each"
    )


if __name__ == "__main__":
    anyio.run(main)
