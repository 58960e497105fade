"""The gateway, all of it but its sockets; it can be killed and started again."""

from collections.abc import Callable
from pathlib import Path

import anyio
import httpx2
from anyio.abc import TaskGroup

from agent_runtime.asgi_exchange import AsgiExchange
from agent_runtime.backends.vllm_servers.engine_discovery import EngineDirectory, EngineSources
from agent_runtime.backends.vllm_servers.engine_fleet import EngineFleet
from agent_runtime.backends.vllm_servers.vllm_servers import VllmServers
from agent_runtime.clock import Clock
from agent_runtime.engine_service import EngineService, EngineServiceOptions
from agent_runtime.errors import JournalError
from agent_runtime.gateway.journal.gateway_journal import GatewayJournal
from agent_runtime.gateway.relay.relay_app import RelayTerms
from agent_runtime.records import Records
from agent_runtime.records.sqlite_store import open_sqlite_store
from tests.chaos.sim_disk import KilledStore
from tests.chaos.sim_engine import SimEngine
from tests.chaos.sim_network import SimNetwork
from tests.word_kv import BLOCK


class GatewayDownError(httpx2.TransportError):
    """Nobody listens, or the connection broke."""


class SimGateway:
    """One gateway at a time.

    Attributes:
        service: Of the one that runs; None while none does.
        num_lives: Started so often.
        forgetful_lives: Those that were killed while their journal could not be written.
        clock_s: How far its machine's clock is off.
    """

    def __init__(
        self,
        engines: list[SimEngine],
        network: SimNetwork,
        policy: str,
        kv_blocks: int,
        journal: Path,
        log: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self._store: KilledStore | None = None
        self._records: Records | None = None
        self.forgetful_lives: set[int] = set()
        self.clock_s = 0.0
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
                with open_sqlite_store(self._journal) as file:
                    self._store = KilledStore(file)
                    await self._live(Records(self._store, self._log, self._epoch_s))
            except JournalError as error:  # whoever starts it tries again
                self._log(f"the gateway does not start: {error}")
            finally:
                self.service = self.servers = self._tasks = self._store = self._records = None
            self._log("the gateway was killed")
            await anyio.sleep(0.3)

    def kill(self) -> None:
        """End it wherever it is."""
        if self._tasks is not None:
            for exchange in self._under_way:
                exchange.break_off(GatewayDownError("the connection was reset"))
            self._under_way = {}
            self.service = None
            if self._store is not None and self._records is not None:
                if self._records.is_behind:
                    self.forgetful_lives.add(self.num_lives)
                self._store.is_dead = True
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

    def _epoch_s(self) -> float:
        return 1e9 + anyio.current_time() + self.clock_s

    async def _live(self, records: Records) -> None:
        self._records = records
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
            tasks.start_soon(records.run)
            while fleet.num_up == 0:
                await anyio.sleep(0.05)
            options = EngineServiceOptions(
                self._policy,
                self._kv_tokens,
                relay=RelayTerms(journal=GatewayJournal(records)),
            )
            self.service = EngineService(servers, options, clock)
            self._log(f"the gateway serves, {fleet.num_up} engines up")
            await anyio.sleep_forever()

    def check_invariants(self) -> None:
        """Raise where what it knows contradicts itself."""
        if self.service is not None and self.servers is not None:
            self.service.scheduler.check_invariants()
            self.servers.probe.residency.check_invariants()
