r"""A research desk on LangGraph: a planner, researchers side by side that call tools, an editor.

    pip install 'panjiu[examples]'
    panjiu run examples/langgraph_research.py --virtual --seed 0
    panjiu run examples/langgraph_research.py --speed 20 -- --reports 2
    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=- \
      python examples/langgraph_research.py

Each agent's conversation is a session, named in a header; a researcher also names the planner's,
which waits for it. The rest is as LangGraph's documentation has it.
"""

import argparse
import asyncio
import operator
import random
import time
from typing import Annotated, Any, TypeAlias, TypedDict

import openai
from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Send

ASPECTS = ("history", "numbers", "critics")
SOURCES = "Say where every figure comes from, and what it leaves out. " * 300


@tool
async def search(query: str) -> str:
    """Search the archive."""
    await asyncio.sleep(random.uniform(0.2, 2))
    return f"{query}: " + "a title and a line of text; " * 100


@tool
def read_page(address: str) -> str:
    """Read a page of the archive."""
    time.sleep(random.uniform(0.5, 6))
    return f"{address}: " + "a sentence of the page. " * 800


TOOLS = [search, read_page]


class Report(TypedDict):
    """What the desk knows of one report."""

    topic: str
    session_id: str
    planned: list[AnyMessage]
    findings: Annotated[list[str], operator.add]
    text: str


class Order(TypedDict):
    """What one researcher is asked, and for whose session."""

    task: str
    aspect: str
    parent: str


Researcher: TypeAlias = "CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]"
Desk: TypeAlias = "CompiledStateGraph[Report, None, Report, Report]"


def researcher_graph(llm: ChatOpenAI) -> Researcher:
    """Return an agent with tools: the model, its tools, and again."""
    model = llm.bind_tools(TOOLS)

    async def call_model(
        state: MessagesState, config: RunnableConfig
    ) -> dict[str, list[AnyMessage]]:
        headers = config["configurable"]["headers"]
        return {"messages": [await model.ainvoke(state["messages"], extra_headers=headers)]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_node("tools", ToolNode(TOOLS))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


def report_graph(llm: ChatOpenAI) -> Desk:
    """Return the desk: plan, research every aspect at once, write."""
    researcher = researcher_graph(llm)

    async def plan(state: Report) -> dict[str, list[AnyMessage]]:
        asked: list[AnyMessage] = [
            SystemMessage(SOURCES + "You plan reports and write them."),
            HumanMessage(f"Plan a report on {state['topic']}."),
        ]
        answer = await llm.ainvoke(asked, extra_headers={"X-Session-ID": state["session_id"]})
        return {"planned": [*asked, answer]}

    def hand_out(state: Report) -> list[Send]:
        plan, parent = state["planned"][-1].text, state["session_id"]
        return [
            Send(
                "research", Order(task=f"{plan}\nResearch: {aspect}.", aspect=aspect, parent=parent)
            )
            for aspect in ASPECTS
        ]

    async def research(state: Order) -> dict[str, list[str]]:
        headers = {
            "X-Session-ID": f"{state['parent']}-{state['aspect']}",
            "X-Panjiu-Parent-Session-Id": state["parent"],
        }
        asked = MessagesState(
            messages=[
                SystemMessage(SOURCES + "You research one aspect, with tools."),
                HumanMessage(state["task"]),
            ]
        )
        ended = await researcher.ainvoke(
            asked, {"configurable": {"headers": headers}, "recursion_limit": 200}
        )
        return {"findings": [ended["messages"][-1].text]}

    async def write(state: Report) -> dict[str, str]:
        found = HumanMessage("\n\n".join(["Write it. What was found:", *state["findings"]]))
        answer = await llm.ainvoke(
            [*state["planned"], found], extra_headers={"X-Session-ID": state["session_id"]}
        )
        return {"text": answer.text}

    graph = StateGraph(Report)
    graph.add_node("plan", plan)
    graph.add_node("research", research, input_schema=Order)
    graph.add_node("write", write)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", hand_out, ["research"])
    graph.add_edge("research", "write")
    graph.add_edge("write", END)
    return graph.compile()


async def what_the_rack_did(client: openai.AsyncOpenAI, session_ids: list[str]) -> str:
    """Ask Panjiu for the sessions, and add them up."""
    sessions = [
        await client.get(f"/sessions/{session_id}", cast_to=dict[str, Any])
        for session_id in session_ids
    ]
    turns, prompt_tokens, cached_tokens = (
        sum(session[key] for session in sessions)
        for key in ("turns", "prompt_tokens", "cached_tokens")
    )
    homes = {session["home_replica"] for session in sessions}
    return (
        f"{turns} turns of {len(sessions)} sessions, {prompt_tokens:,} prompt tokens, "
        f"{cached_tokens / prompt_tokens:.1%} of them found in KV caches\n"
        f"replicas that the sessions are at home on: {len(homes)}"
    )


async def main() -> None:
    """Write the reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, default=6)
    args = parser.parse_args()
    began_s = time.monotonic()
    async with openai.AsyncOpenAI() as client:
        desk = report_graph(ChatOpenAI(model=(await client.models.list()).data[0].id))
        ids = [f"report-{number}" for number in range(args.reports)]
        orders = [
            Report(topic=f"subject {name}", session_id=name, planned=[], findings=[], text="")
            for name in ids
        ]
        reports = await asyncio.gather(*(desk.ainvoke(order) for order in orders))
        took_s = time.monotonic() - began_s
        num_findings = sum(len(report["findings"]) for report in reports)
        print(f"{args.reports} reports from {num_findings} findings, {took_s:.1f} s")
        ids += [f"{name}-{aspect}" for name in ids for aspect in ASPECTS]
        print(await what_the_rack_did(client, ids))


if __name__ == "__main__":
    asyncio.run(main())
