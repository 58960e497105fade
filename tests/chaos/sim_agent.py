"""An agent program of the SDK's, with a journal, run again until it has come to its end.

What it checks: its answers are those that nobody disturbed would get, and no tool call whose result
a model was told is made again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx2
from typing_extensions import override

from agent_runtime.asgi_exchange import AsgiApp
from agent_runtime.errors import AgentRuntimeError
from agent_runtime.sdk import Agent, Runtime, RuntimeOptions, Tool, ToolContext
from agent_runtime.simulation import asgi_client
from tests.chaos.sim_apis import DEFAULT_WORDS, TOOL_WORD
from tests.chaos.sim_engine import SimEngine
from tests.chaos.sim_gateway import SimGateway
from tests.chaos.violation import ViolationError

ANSWER = " ".join(f"w{index}" for index in range(DEFAULT_WORDS))


@dataclass
class SimTools:
    """What agents' tools do.

    Attributes:
        engines: Know whose results models were told.
        hang_s: How long the next call takes.
        num_made: By call.
        problems: Promises that were broken; an error of a tool's is told to the model.
    """

    engines: list[SimEngine]
    hang_s: float = 0.0
    num_made: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    async def work(self, context: ToolContext, item: str) -> str:
        """Do what must not be done again once somebody was told of it."""
        call_id = f"call-{item}"
        if context.call_id != call_id:
            self.problems.append(f"{context.call_id} was made for {call_id}")
        if any(call_id in engine.seen_results for engine in self.engines):
            self.problems.append(f"{call_id} was made again, though a model was told its result")
        self.num_made[call_id] = self.num_made.get(call_id, 0) + 1
        hang_s, self.hang_s = self.hang_s, 0.0
        await anyio.sleep(0.1 + hang_s)
        return f"worked on {item}"


@dataclass
class SimAgent:
    """One program, of one session.

    Attributes:
        num_done: Turns answered.
        num_lives: Times that it was run.
    """

    name: str
    num_turns: int
    folder: Path
    tools: SimTools
    log: Callable[[str], None]
    num_done: int = 0
    num_lives: int = 0

    async def run(self, gateway: SimGateway) -> None:
        """Run the program until it ends well."""
        while True:
            self.num_lives += 1
            try:
                await self._live(gateway)
            except AgentRuntimeError as error:
                self.log(f"{self.name} ended: {error}")
                await anyio.sleep(0.5)
            else:
                self.num_done = self.num_turns
                self.log(f"{self.name} is done, after {self.num_lives} lives")
                return

    async def _live(self, gateway: SimGateway) -> None:
        options = RuntimeOptions(journal=self.folder / f"{self.name}.db")
        async with Runtime.connect(
            "http://gateway/v1",
            model="words",
            options=options,
            transport=GatewayTransport(gateway),
        ) as runtime:
            agent = Agent(self.name, "you work", [Tool(self.tools.work)])
            async with runtime.session(agent, session_id=self.name) as session:
                for number in range(self.num_turns):
                    told = f"{TOOL_WORD} turn:{self.name}:{number}"
                    answer = (await session.run(told)).text
                    if answer != ANSWER:
                        raise ViolationError(f"{told} was answered {answer!r}")
                    self.num_done = max(self.num_done, number + 1)


class GatewayTransport(httpx2.AsyncBaseTransport):
    """To whatever gateway runs."""

    def __init__(self, gateway: SimGateway) -> None:
        self._gateway = gateway

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        library: ModuleType = httpx2
        response: httpx2.Response = await asgi_client.send(library, _nobody, self._start, request)
        return response

    def _start(self, run: Any, _: AsgiApp) -> None:
        self._gateway.serve(run.__self__)


async def _nobody(*_: Any) -> None:
    """Stand in for an app: the gateway has its own."""
