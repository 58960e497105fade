"""Questions to long documents: each is read once, and asked everything by forks of that reading.

    panjiu run examples/sdk_map_reduce.py --virtual --seed 1
    panjiu run examples/sdk_map_reduce.py --virtual -- --documents 40 --words 60000
    panjiu run examples/sdk_map_reduce.py --virtual -- --no-forks

Map: a session reads a document, forks of it answer the questions about it. Reduce: one session puts
the answers together. With --no-forks every question is a session of its own, and finds its document
in a KV cache only by luck.
"""

import argparse

import anyio

from agent_runtime.sdk import Agent, Runtime

QUESTIONS = ("Who is bound by it?", "What does it cost?", "When does it end?", "What is missing?")
READER = Agent("reader", instructions="You answer from the document alone, in one sentence.")
WRITER = Agent("writer", instructions="You compare what was found in many documents.")


def document(number: int, num_words: int) -> str:
    """Return a document."""
    clause = f"Clause of document {number}, which the parties agreed upon. "
    return clause * (num_words // 10)


async def read(runtime: Runtime, number: int, args: argparse.Namespace) -> list[str]:
    """Return a document's answers."""
    text = document(number, args.words)
    if args.no_forks:
        answers = []
        for question in QUESTIONS:
            async with runtime.session(READER) as session:
                answers.append((await session.run(f"{text}\n\n{question}")).text)
        return answers
    async with runtime.session(READER, session_id=f"document-{number}") as session:
        await session.run(f"{text}\n\nRead it, and say what it is.")
        return [result.text for result in await session.fork_map(QUESTIONS)]


async def main() -> None:
    """Read all documents, some at a time, and compare them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--words", type=int, default=40_000)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--no-forks", action="store_true")
    args = parser.parse_args()
    found: dict[int, list[str]] = {}
    limit = anyio.CapacityLimiter(args.at_once)
    began_s = anyio.current_time()

    async def one(number: int) -> None:
        async with limit:
            found[number] = await read(runtime, number, args)

    async with Runtime.connect() as runtime:
        async with anyio.create_task_group() as tasks:
            for number in range(args.documents):
                tasks.start_soon(one, number)
        lines = [f"{number}: {answer}" for number in sorted(found) for answer in found[number]]
        async with runtime.session(WRITER) as session:
            report = await session.run("Compare:\n" + "\n".join(lines))
    print(
        f"{args.documents} documents, {len(lines)} answers, a report of {len(report.text):,} "
        f"characters after {anyio.current_time() - began_s:.0f} s"
    )


if __name__ == "__main__":
    anyio.run(main)
