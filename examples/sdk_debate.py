"""Two agents argue by letter, a third one judges; long debates are summed up as they go.

panjiu run examples/sdk_debate.py --virtual --seed 1
panjiu run examples/sdk_debate.py --virtual -- --debates 50 --rounds 12
"""

import argparse

import anyio
from pydantic import BaseModel

from agent_runtime.sdk import Agent, Budget, Runtime, Usage

COMPACT_EVERY = 4


class Ruling(BaseModel):
    """Who won."""

    winner: str
    reason: str


def debater(side: str) -> Agent:
    """Return an agent of one side."""
    return Agent(side, instructions=f"You argue {side}. " + "Answer the point that was made. " * 50)


async def speak(runtime: Runtime, number: int, side: str, opponent: str, rounds: int) -> Usage:
    """Answer each letter of the other side, which has another mailbox in every debate."""
    agent = debater(side)
    async with runtime.session(
        agent, session_id=f"debate-{number}-{side}", budget=Budget(tokens=2_000_000)
    ) as session:
        mailbox = runtime.mailbox(session.session_id)
        for turn in range(rounds):
            said = (await mailbox.take()).content
            answer = await session.run(f"The other side says: {said}")
            await session.send(f"debate-{number}-{opponent}", answer.text)
            if turn % COMPACT_EVERY == COMPACT_EVERY - 1:
                await session.compact(keep_last=2)
        return session.usage


async def debate(runtime: Runtime, number: int, rounds: int) -> tuple[Usage, str]:
    """Hold a debate; return what it used, and who won."""
    usages: list[Usage] = []

    async def side(own: str, other: str) -> None:
        usages.append(await speak(runtime, number, own, other, rounds))

    judge = Agent("judge", instructions="You judge debates.")
    async with runtime.session(judge, session_id=f"debate-{number}-judge") as session:
        await session.send(f"debate-{number}-for", f"Motion {number}: caches should be shared.")
        async with anyio.create_task_group() as sides:
            sides.start_soon(side, "for", "against")
            sides.start_soon(side, "against", "for")
        last = (await runtime.mailbox(f"debate-{number}-for").take()).content
        ruling = await session.run(f"It ended so: {last}. Who won?", output=Ruling, second_tries=1)
        return sum(usages, start=session.usage), ruling.output.winner


async def main() -> None:
    """Hold all debates at once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--debates", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    ended: list[tuple[Usage, str]] = []
    began_s = anyio.current_time()

    async def one(number: int) -> None:
        ended.append(await debate(runtime, number, args.rounds))

    async with Runtime.connect() as runtime, anyio.create_task_group() as tasks:
        for number in range(args.debates):
            tasks.start_soon(one, number)
    total = sum((usage for usage, _ in ended), start=Usage())
    print(
        f"{args.debates} debates of {args.rounds} rounds: {total.prompt_tokens:,} prompt tokens, "
        f"{total.cached_tokens / total.prompt_tokens:.1%} found in KV caches, "
        f"{anyio.current_time() - began_s:.0f} s"
    )


if __name__ == "__main__":
    anyio.run(main)
