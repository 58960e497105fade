r"""A support desk on the OpenAI Agents SDK: triage hands over to specialists, customers come back.

    pip install 'panjiu[examples]'
    panjiu run examples/openai_agents_support.py --virtual --seed 0
    panjiu run examples/openai_agents_support.py --speed 20 -- --customers 3
    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=- \
      python examples/openai_agents_support.py

A customer's conversation is one session, whichever agent speaks: it is named in a header of every
request. The rest is as the SDK's documentation has it.
"""

import argparse
import asyncio
import random
import time

import openai
from agents import (
    Agent,
    ModelSettings,
    RunConfig,
    Runner,
    TResponseInputItem,
    Usage,
    function_tool,
    set_default_openai_client,
)

HANDBOOK = "Be kind, be brief, and never promise what the terms do not say. " * 300
QUESTIONS = (
    "I am {} and was charged twice.",
    "Besides, the app does not start.",
    "Thank you. Is it all done?",
)


@function_tool
async def find_orders(customer: str) -> str:
    """List a customer's orders."""
    await asyncio.sleep(random.uniform(0.1, 1.5))
    return f"orders of {customer}: " + "order, paid; " * 80


@function_tool
async def refund(order: str, reason: str) -> str:
    """Give the money for an order back."""
    await asyncio.sleep(random.uniform(1, 4))
    return f"{order} is refunded: {reason}"


@function_tool
async def read_logs(pattern: str) -> str:
    """Search the logs of a customer's app."""
    await asyncio.sleep(random.uniform(2, 10))
    return f"{pattern}: " + "line of a log; " * 400


def desk(model: str) -> Agent:
    """Return the agent that customers meet first."""
    billing = Agent(
        name="billing",
        instructions=HANDBOOK + "You answer what is about money.",
        handoff_description="Orders, charges and refunds.",
        tools=[find_orders, refund],
        model=model,
    )
    technical = Agent(
        name="technical",
        instructions=HANDBOOK + "You answer what is about the app.",
        handoff_description="The app and its errors.",
        tools=[read_logs],
        model=model,
    )
    return Agent(
        name="triage",
        instructions=HANDBOOK + "You find out who can help.",
        handoffs=[billing, technical],
        model=model,
    )


async def serve(first: Agent, session_id: str) -> tuple[Usage, list[str]]:
    """Answer one customer's questions; return what it took, and who answered."""
    config = RunConfig(
        model_settings=ModelSettings(extra_headers={"X-Session-ID": session_id}),
        tracing_disabled=True,  # traces would go to api.openai.com
    )
    used, speakers = Usage(), []
    agent, said = first, list[TResponseInputItem]()
    await asyncio.sleep(random.uniform(0, 10))
    for question in QUESTIONS:
        said.append({"role": "user", "content": question.format(session_id)})
        result = await Runner.run(agent, said, run_config=config)
        used.add(result.context_wrapper.usage)
        agent, said = result.last_agent, result.to_input_list()
        speakers.append(agent.name)
        await asyncio.sleep(random.uniform(5, 20))  # the customer reads and types
    return used, speakers


async def num_homes(client: openai.AsyncOpenAI, session_ids: list[str]) -> int:
    """Ask Panjiu how many replicas hold the sessions' KV."""
    told = [
        await client.get(f"/sessions/{session_id}", cast_to=dict[str, object])
        for session_id in session_ids
    ]
    return len({session["home_replica"] for session in told})


async def main() -> None:
    """Open the desk."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--customers", type=int, default=12)
    args = parser.parse_args()
    began_s = time.monotonic()
    async with openai.AsyncOpenAI() as client:
        set_default_openai_client(client, use_for_tracing=False)
        first = desk((await client.models.list()).data[0].id)
        session_ids = [f"customer-{number}" for number in range(args.customers)]
        served = await asyncio.gather(*(serve(first, session_id) for session_id in session_ids))
        took_s = time.monotonic() - began_s
        total = Usage()
        for used, _ in served:
            total.add(used)
        spoke = [name for _, speakers in served for name in speakers]
        print(f"{args.customers} customers, {total.requests} model calls, {took_s:.1f} s")
        print("answers: " + ", ".join(f"{spoke.count(name)} {name}" for name in sorted(set(spoke))))
        hit_ratio = total.input_tokens_details.cached_tokens / total.input_tokens
        print(
            f"{total.input_tokens:,} prompt tokens, {hit_ratio:.1%} of them found in KV caches, "
            f"{total.output_tokens:,} generated"
        )
        print(f"replicas that the sessions are at home on: {await num_homes(client, session_ids)}")


if __name__ == "__main__":
    asyncio.run(main())
