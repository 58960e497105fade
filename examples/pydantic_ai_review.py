"""A code review by several agents of pydantic-ai: a planner, reviewers side by side, a summary.

    pip install 'panjiu[examples]'
    panjiu run examples/pydantic_ai_review.py --virtual --seed 1
    panjiu run examples/pydantic_ai_review.py --speed 20

Typed output, tools that block in threads, agents that call agents: as its documentation has it.
"""

import asyncio
import time

from pydantic import BaseModel
from pydantic_ai import Agent

MODEL = "openai-chat:gpt-5"


class Finding(BaseModel):
    """One thing to mend."""

    file: str
    line: int
    problem: str


class Review(BaseModel):
    """What a reviewer says."""

    approve: bool
    findings: list[Finding]


planner = Agent(MODEL, instructions="Name the aspects that this change must be reviewed for.")
reviewer = Agent(MODEL, output_type=Review, instructions="Review the change for one aspect.")
editor = Agent(MODEL, instructions="Summarise the reviews for the author.")


@reviewer.tool_plain
def read_file(path: str) -> str:
    """Read a file of the change."""
    time.sleep(0.2)
    return f"{path}: " + "code " * 400


@reviewer.tool_plain
async def run_tests(pattern: str) -> str:
    """Run the tests whose names match."""
    await asyncio.sleep(20)
    return f"{pattern}: 12 passed"


async def main() -> None:
    """Review one change."""
    began_s = time.monotonic()
    change = "diff " * 2000
    plan = await planner.run(f"The change:\n{change}")
    aspects = ["correctness", "performance", "names", "tests"]
    reviews = await asyncio.gather(
        *(reviewer.run(f"{change}\n{plan.output}\nReview for {aspect}.") for aspect in aspects)
    )
    num_findings = sum(len(review.output.findings) for review in reviews)
    summary = await editor.run(f"{change}\n" + "\n".join(str(r.output) for r in reviews))
    print(f"{len(reviews)} reviews, {num_findings} findings, {time.monotonic() - began_s:.1f} s")
    print(summary.output[:72])


if __name__ == "__main__":
    asyncio.run(main())
