"""A fleet of agents through openai's client on the emulated rack, in virtual time.

    python -m benchmarks.virtual_time.agent_fleet
    python -m benchmarks.virtual_time.agent_fleet --stream --agents 100

Each agent sends its whole growing conversation every turn, as real ones do, takes the answer in and
runs a tool for some seconds.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import anyio
import httpx2
import openai

from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from benchmarks.virtual_time.emulated import emulated_service


async def ask(client: openai.AsyncOpenAI, messages: list[Any], number: int, *, stream: bool) -> str:
    """Run a turn; return the answer."""
    extra = {"session_id": f"agent-{number}"}
    if not stream:
        answer = await client.chat.completions.create(
            model="m", messages=messages, extra_body=extra
        )
        return answer.choices[0].message.content or ""
    text = ""
    async for chunk in await client.chat.completions.create(
        model="m", messages=messages, stream=True, extra_body=extra
    ):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    return text


def main() -> None:
    """Run the fleet and print what it cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--first-prompt-words", type=int, default=20_000)
    parser.add_argument("--tool-words", type=int, default=900)
    parser.add_argument("--stream", action="store_true")
    args = parser.parse_args()
    clock = VirtualClock()
    service = emulated_service(clock)

    async def agent(client: openai.AsyncOpenAI, number: int) -> None:
        await anyio.sleep(0.1 * number)
        task = f"task {number} " + "word " * args.first_prompt_words
        messages: list[Any] = [{"role": "user", "content": task}]
        for _ in range(args.turns):
            answer = await ask(client, messages, number, stream=args.stream)
            result = "result " + "line " * args.tool_words
            messages += [
                {"role": "assistant", "content": answer},
                {"role": "user", "content": result},
            ]
            await anyio.sleep(1.0 + number % 7)

    async def fleet() -> None:
        transport = StreamingAsgiTransport(service.app)
        async with httpx2.AsyncClient(transport=transport, timeout=None) as http:
            client = openai.AsyncOpenAI(
                api_key="-", base_url="http://rack/v1", http_client=http, max_retries=0
            )
            async with anyio.create_task_group() as tasks:
                for number in range(args.agents):
                    tasks.start_soon(agent, client, number)

    began_s = time.perf_counter()
    anyio.run(
        fleet,
        backend_options={"loop_factory": lambda: VirtualTimeLoop(clock=clock, world=service.rack)},
    )
    wall_s = time.perf_counter() - began_s
    num_turns = args.agents * args.turns
    print(
        f"{args.agents} agents x {args.turns} turns: {wall_s:.1f} s of wall time, "
        f"{wall_s / num_turns * 1e3:.2f} ms a turn; {clock.now_s:.0f} s of virtual time, "
        f"{clock.now_s / wall_s:.1f} times as fast as real time"
    )


if __name__ == "__main__":
    main()
