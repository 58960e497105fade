"""What the SDK costs a turn beyond the HTTP client it uses.

    python -m benchmarks.sdk.overhead [--turns 30] [--context-words 100000]

The same requests go to a server in the process that answers at once: once sent by the SDK (the
tool loop, events, budgets, hints, typed arguments), once by the HTTP client alone, by turns. The
difference is the SDK's.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from statistics import median
from typing import Any

import anyio
import httpx2
from typing_extensions import override

from agent_runtime.chat_client import ChatClient, ChatServer
from agent_runtime.sdk import Agent, Budget, Runtime, tool

ROUNDS = 9


class InstantServer(httpx2.AsyncBaseTransport):
    """Calls a tool until it has answered so often, then says that it is done.

    Attributes:
        bodies: Of the requests, in order.
    """

    def __init__(self, num_turns: int) -> None:
        self._num_turns = num_turns
        self.bodies: list[bytes] = []

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(await request.aread())
        number = len(self.bodies)
        message: dict[str, Any] = {"role": "assistant", "content": "done"}
        if number < self._num_turns:
            function = {"name": "read_lines", "arguments": '{"path": "a.py", "first": 3}'}
            call = {"id": f"call-{number}", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        usage = {"prompt_tokens": 1000, "completion_tokens": 10}
        answer = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        return httpx2.Response(200, json=answer)


@tool
async def read_lines(path: str, first: int = 1) -> str:
    """Read lines of a file."""
    return f"{path} {first}"


async def by_the_sdk(num_turns: int, context: str) -> tuple[float, list[bytes]]:
    """Return the CPU seconds that a run takes, and what was sent."""
    server = InstantServer(num_turns)
    agent = Agent("reader", instructions=context, tools=[read_lines])
    async with (
        Runtime.connect("http://server/v1", model="m", transport=server) as runtime,
        runtime.session(agent, budget=Budget(tokens=10**9)) as session,
    ):
        began_s = time.process_time()
        await session.run("begin")
        return time.process_time() - began_s, server.bodies


async def by_the_client(bodies: list[bytes]) -> float:
    """Return the CPU seconds that the same requests take without the SDK."""
    server = InstantServer(len(bodies))
    async with ChatClient(ChatServer("http://server/v1"), server) as client:
        began_s = time.process_time()
        for body in bodies:
            async with client.post(body, {"x-session-id": "reader"}) as answer:
                json.dumps(await answer.whole())
        return time.process_time() - began_s


async def measure(args: argparse.Namespace) -> None:
    """Print the report."""
    context = "word " * args.context_words
    sdk, client, bodies = [], [], [b""]
    for _ in range(ROUNDS):
        gc.collect()
        spent_s, bodies = await by_the_sdk(args.turns, context)
        sdk.append(spent_s / args.turns)
        client.append(await by_the_client(bodies) / args.turns)
    own = median(s - c for s, c in zip(sdk, client, strict=True))
    print(
        f"{args.turns} turns with {len(bodies[-1]) / 1e3:,.0f} KB: {median(sdk) * 1e6:.0f} us a "
        f"turn by the SDK, {median(client) * 1e6:.0f} us by the client alone; the SDK's own: "
        f"{own * 1e6:.0f} us"
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--context-words", type=int, default=2_000)
    anyio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
