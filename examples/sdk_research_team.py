"""A planner, workers that share its trunk, and a critic.

    panjiu run examples/sdk_research_team.py --virtual --seed 1
    panjiu run examples/sdk_research_team.py --virtual -- --questions 20

The planner reads the sources once. Each worker is a fork of it: what the planner read is in the KV
cache already. Drafts go to the critic by letter, and the planner goes on as the best worker.
"""

import argparse
import random

import anyio
from pydantic import BaseModel

from agent_runtime.sdk import Agent, RunResult, Runtime, Session, tool

SOURCES = "\n".join(
    f"Source {number}: " + "an observation that bears on the question, " * 120
    for number in range(40)
)


@tool(expected_s=4)
async def search(query: str) -> list[str]:
    """Search the web."""
    await anyio.sleep(random.uniform(1, 8))
    return [f"{query}: result {number}" for number in range(5)]


@tool(expected_s=2)
async def read_page(url: str) -> str:
    """Read a page."""
    await anyio.sleep(random.uniform(0.5, 4))
    return f"{url}\n" + "a paragraph of the page " * 200


class Grade(BaseModel):
    """What the critic thinks of a draft."""

    score: int
    weakest_point: str


RESEARCHER = Agent(
    "researcher",
    instructions="You do research with these sources at hand.\n" + SOURCES,
    tools=[search, read_page],
)
CRITIC = Agent("critic", instructions="You grade drafts. Be harsh and brief.")


async def criticise(runtime: Runtime, number: int) -> None:
    """Grade drafts as they come."""
    async with runtime.session(CRITIC, session_id=f"critic-{number}") as session:
        async for letter in runtime.mailbox(CRITIC.name):
            grade = await session.run(f"Grade this:\n{letter.content}", output=Grade)
            letter.answer(grade.output.score)


async def best_of(session: Session, drafts: list[RunResult[str]]) -> RunResult[str]:
    """Have all drafts graded; return the best."""
    scores: dict[str, int] = {}

    async def grade(draft: RunResult[str]) -> None:
        (score,) = await session.gather([CRITIC.name], draft.text)
        scores[draft.session_id] = score

    async with anyio.create_task_group() as tasks:
        for draft in drafts:
            tasks.start_soon(grade, draft)
    return max(drafts, key=lambda draft: (scores[draft.session_id], draft.session_id))


async def answer(runtime: Runtime, number: int) -> tuple[int, int]:
    """Answer one question; return the tokens of its prompts, and those found in KV caches."""
    async with runtime.session(RESEARCHER, session_id=f"question-{number:02d}") as session:
        await session.run(f"Question {number}: read the sources and name three lines of attack.")
        drafts = await session.fork_map(
            [f"Follow line {line} and write a draft." for line in ("A", "B", "C")]
        )
        session.adopt(await best_of(session, drafts))
        await session.run("Write the final answer.")
        return session.usage.prompt_tokens, session.usage.cached_tokens


async def main() -> None:
    """Answer all questions at once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=6)
    parser.add_argument("--critics", type=int, default=2)
    args = parser.parse_args()
    tokens: list[tuple[int, int]] = []
    began_s = anyio.current_time()

    async def question(number: int) -> None:
        tokens.append(await answer(runtime, number))

    async with Runtime.connect() as runtime, anyio.create_task_group() as critics:
        for number in range(args.critics):
            critics.start_soon(criticise, runtime, number)
        async with anyio.create_task_group() as questions:
            for number in range(args.questions):
                questions.start_soon(question, number)
        critics.cancel_scope.cancel()
    prompts, cached = (sum(column) for column in zip(*tokens, strict=True))
    print(
        f"{args.questions} questions, {3 * args.questions} drafts: {prompts:,} prompt tokens, "
        f"{cached / prompts:.1%} found in KV caches, {anyio.current_time() - began_s:.0f} s"
    )


if __name__ == "__main__":
    anyio.run(main)
