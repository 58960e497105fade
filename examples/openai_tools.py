"""A fleet of coding agents: openai's client, a loop, and tools. Nothing here knows of Panjiu.

panjiu run examples/openai_tools.py --virtual --seed 1
panjiu run examples/openai_tools.py --speed 50 -- --agents 4
OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=- python examples/openai_tools.py
"""

import argparse
import asyncio
import json
import random
import time

import openai
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam

INSTRUCTIONS = "You are a careful engineer. Read before you edit, and run the tests at the end.\n"
STYLE_GUIDE = "Prefer small functions with clear names and tests that say what they show. " * 400


def tool(name: str, description: str, *parameters: str) -> ChatCompletionFunctionToolParam:
    """Describe a tool whose parameters are all strings."""
    schema = {
        "type": "object",
        "properties": {key: {"type": "string"} for key in parameters},
        "required": list(parameters),
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


TOOLS = [
    tool("read_file", "Read a file.", "path"),
    tool("edit_file", "Replace lines of a file.", "path", "text"),
    tool("run_tests", "Run the test suite.", "pattern"),
]
TOOL_S = {"read_file": (0.02, 0.3), "edit_file": (0.05, 0.5), "run_tests": (5.0, 90.0)}
TOOL_WORDS = {"read_file": 1200, "edit_file": 20, "run_tests": 300}


async def call_tool(name: str, arguments: str) -> str:
    """Pretend to work: tools take their time and say something."""
    await asyncio.sleep(random.uniform(*TOOL_S[name]))
    words = " ".join(["line"] * TOOL_WORDS[name])
    return f"{name} {sorted(json.loads(arguments))}: {words}"


async def work(client: openai.AsyncOpenAI, number: int) -> int:
    """Let one agent work on one task until it answers; return its model calls."""
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": INSTRUCTIONS + STYLE_GUIDE},
        {"role": "user", "content": f"Fix issue {number}."},
    ]
    num_calls = 0
    while True:
        num_calls += 1
        answer = await client.chat.completions.create(
            model="gpt-5",
            messages=messages,
            tools=TOOLS,
            extra_headers={"X-Session-ID": f"coder-{number}"},
        )
        message = answer.choices[0].message
        messages.append(message.to_dict())  # type: ignore[arg-type] # what came goes back
        if not message.tool_calls:
            return num_calls
        calls = [call for call in message.tool_calls if call.type == "function"]
        results = await asyncio.gather(
            *(call_tool(call.function.name, call.function.arguments) for call in calls)
        )
        for call, result in zip(calls, results, strict=True):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


async def main() -> None:
    """Run the fleet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=24)
    args = parser.parse_args()
    began_s = time.monotonic()
    async with openai.AsyncOpenAI() as client:
        calls = await asyncio.gather(*(work(client, number) for number in range(args.agents)))
    took_s = time.monotonic() - began_s
    print(f"{args.agents} agents, {sum(calls)} model calls, {took_s:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
