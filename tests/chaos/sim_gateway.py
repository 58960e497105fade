"""The gateway, all of it but its sockets; it can be killed and started again."""

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from agent_runtime.asgi_exchange import AsgiExchange
from agent_runtime.backends.vllm_servers.engine_discovery import EngineDirectory, EngineSources
from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet
from agent_runtime.backends.vllm_servers.vllm_servers import VllmServers
from agent_runtime.clock import Clock
from agent_runtime.engine_service import EngineService, EngineServiceOptions
from tests.chaos.sim_engine import SimEngine
from tests.chaos.sim_network import SimNetwork
from tests.word_kv import BLOCK


class GatewayDownError(Exception):
    """Nobody listens, or the connection broke."""


class SimGateway:
    """One gateway at a time.

    Attributes:
        service: Of the one that runs; None while none does.
        num_lives: Started so often.
    """

    def __init__(
        self,
        engines: list[SimEngine],
        network: SimNetwork,
        policy: str,
        kv_blocks: int,
        log: Callable[[str], None],
    ) -> None:
        self._engines, self._network, self._policy = engines, network, policy
        self._kv_tokens = kv_blocks * BLOCK
        self._log = log
        self._tasks: TaskGroup | None = None
        self._under_way: dict[AsgiExchange, None] = {}
        self.service: EngineService | None = None
        self.servers: VllmServers | None = None
        self.num_lives = 0

    async def run(self) -> None:
        """Serve until cancelled, again and again."""
        while True:
            self.num_lives += 1
            try:
                await self._live()
            finally:
                self.service = self.servers = self._tasks = None
            self._log("the gateway was killed")
            await anyio.sleep(0.3)

    def kill(self) -> None:
        """End it wherever it is."""
        if self._tasks is not None:
            for exchange in self._under_way:
                exchange.break_off(GatewayDownError("the connection was reset"))
            self._under_way = {}
            self.service = None
            self._tasks.cancel_scope.cancel()

    def serve(self, exchange: AsgiExchange) -> None:
        """Take a request; where nobody is there, it gets a ``GatewayDownError``."""
        if self._tasks is None or self.service is None:
            exchange.break_off(GatewayDownError("connection refused"))
            return
        self._under_way[exchange] = None
        self._tasks.start_soon(self._answer, exchange)

    async def _answer(self, exchange: AsgiExchange) -> None:
        assert self.service is not None
        app = self.service.app
        try:
            await exchange.run(app)
        finally:
            self._under_way.pop(exchange, None)

    async def _live(self) -> None:
        fleet = EngineFleet(max(2, len(self._engines)))
        fleet.notice = self._log
        urls = [engine.url for engine in self._engines]
        directory = EngineDirectory(EngineSources(urls), self._log)
        clock = Clock()
        servers = VllmServers(
            fleet,
            self._network,
            directory,
            clock,
            event_lines=self._network.open_event_lines,
        )
        async with anyio.create_task_group() as tasks:
            self._tasks, self.servers = tasks, servers
            tasks.start_soon(servers.run)
            while fleet.num_up == 0:
                await anyio.sleep(0.05)
            options = EngineServiceOptions(self._policy, self._kv_tokens)
            self.service = EngineService(servers, options, clock)
            self._log(f"the gateway serves, {fleet.num_up} engines up")
            await anyio.sleep_forever()

    def check_invariants(self) -> None:
        """Raise where what it knows contradicts itself."""
        if self.service is not None and self.servers is not None:
            self.service.scheduler.check_invariants()
            self.servers.probe.residency.check_invariants()
