"""One seed: the gateway, its engines and its clients in virtual time, with faults.

Safety, at every fault and every second: no invariant of scheduler or residency is broken, every
reply is right word by word (``SimClient``), no turn is generated to its end more often than it was
asked for, no answer that was given whole is forgotten unless the journal said that it could not be
written, no tool call is made again whose result a model was told (``SimAgent``). Liveness: once all
is well, every session is done within ``BOUND_S``. At the end nothing is left: no turn, no request
on an engine, no KV that is claimed and not there.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251 - seeded by the plan

import anyio

from agent_runtime.backends.vllm_servers.vllm_servers import VllmServers
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from scheduler.ids import SessionId
from tests.chaos.fault_plan import Plan, Planned
from tests.chaos.sim_agent import SimAgent, SimTools
from tests.chaos.sim_client import SimClient
from tests.chaos.sim_disk import SimDisk
from tests.chaos.sim_engine import SimEngine
from tests.chaos.sim_gateway import SimGateway
from tests.chaos.sim_network import SimNetwork
from tests.chaos.strikes import BEGIN, END, Struck
from tests.chaos.violation import ViolationError
from tests.journal_places import fast_folder
from tests.word_kv import chat_words

BOUND_S = 120.0
SETTLE_S = 90.0
"""After the last turn, within which everything is forgotten that should be."""


@dataclass
class Outcome:
    """What came of a seed.

    Attributes:
        problem: What was broken, or None.
        ended_s: In virtual time.
        num_attempts: Turns asked for, those that were asked for again included.
        log: What happened.
    """

    plan: Plan
    problem: str | None = None
    ended_s: float = 0.0
    num_turns: int = 0
    num_attempts: int = 0
    log: list[str] = field(default_factory=list)


def run_plan(plan: Plan) -> Outcome:
    """Run a plan; what breaks is told and not raised."""
    outcome = Outcome(plan)
    disk = SimDisk(Random(plan.seed + 2))  # noqa: S311
    try:
        with fast_folder() as folder, disk.under_sqlite():
            world = _World(plan, outcome, disk, folder)
            anyio.run(world.run, backend_options={"loop_factory": VirtualTimeLoop})
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        outcome.problem = "\n".join(_told(leaf) for leaf in _leaves(error))
    return outcome


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]


def _told(error: BaseException) -> str:
    """Return a broken promise in a line, and anything else with where it came from."""
    if isinstance(error, ViolationError):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()


class _World:
    def __init__(self, plan: Plan, outcome: Outcome, disk: SimDisk, folder: Path) -> None:
        self._plan, self._outcome = plan, outcome
        self._disk, self._folder = disk, folder
        self._rng = Random(plan.seed + 1)  # noqa: S311 - it shall be the same again

    def _log(self, text: str) -> None:
        text = text.replace(f"{self._folder}/", "")  # another one every time
        self._outcome.log.append(f"{anyio.current_time():9.3f}  {text}")

    async def run(self) -> None:
        plan, rng = self._plan, self._rng
        self._engines = [SimEngine(number, plan.kv_blocks) for number in range(plan.num_engines)]
        self._network = SimNetwork(self._engines, Random(rng.random()))  # noqa: S311
        self._gateway = SimGateway(
            self._engines,
            self._network,
            plan.policy,
            plan.kv_blocks,
            self._folder / "gateway.db",
            self._log,
        )
        self._clients = [
            SimClient(
                f"s{number}",
                plan.num_turns,
                Random(rng.random()),  # noqa: S311
                self._log,
                speaks_responses=number % 3 == 2,
            )
            for number in range(plan.num_sessions)
        ]
        self._tools = SimTools(self._engines)
        self._agents = [
            SimAgent(f"agent{number}", plan.num_turns, self._folder, self._tools, self._log)
            for number in range(plan.num_agents)
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._gateway.run)
            async with anyio.create_task_group() as working:
                for one in self._all:
                    working.start_soon(one.run, self._gateway)
                working.start_soon(self._strike)
                working.start_soon(self._watch)
            outcome = self._outcome
            outcome.ended_s = anyio.current_time()
            outcome.num_turns = len(self._all) * plan.num_turns
            outcome.num_attempts = sum(sum(c.num_attempts.values()) for c in self._clients)
            await anyio.sleep(SETTLE_S)
            self._check_the_end()
            tasks.cancel_scope.cancel()

    @property
    def _all(self) -> Sequence[SimClient | SimAgent]:
        return [*self._clients, *self._agents]

    async def _strike(self) -> None:
        """Let everything go wrong in its time."""
        async with anyio.create_task_group() as faults:
            for planned in self._plan.faults:
                faults.start_soon(self._fault, planned)
            await anyio.sleep_until(self._plan.heal_s)
            faults.cancel_scope.cancel()
        for engine in self._engines:
            engine.recover()
            self._network.links[engine.number].mend()
        self._disk.is_full = self._disk.loses_fsyncs = False
        self._log("all is well again")

    async def _fault(self, planned: Planned) -> None:
        await anyio.sleep_until(planned.at_s)
        engine = self._engines[planned.target % len(self._engines)]
        client = self._clients[planned.target % len(self._clients)]
        struck = Struck(
            planned, engine, client, self._network, self._gateway, self._disk, self._tools
        )
        self._log(f"{planned.fault} ({engine.number}, {client.name}, {planned.lasts_s:.2f} s)")
        BEGIN[planned.fault](struck)
        self._gateway.check_invariants()
        await anyio.sleep(planned.lasts_s)
        if planned.fault in END:
            END[planned.fault](struck)
            self._log(f"over: {planned.fault} ({engine.number})")

    async def _watch(self) -> None:
        """Look after what must hold at all times, until all clients are done."""
        while not all(one.num_done == one.num_turns for one in self._all):
            self._gateway.check_invariants()
            self._check_completed()
            if anyio.current_time() > self._plan.heal_s + BOUND_S:
                late = [f"{c.name} ({c.num_done} of {c.num_turns})" for c in self._all]
                raise ViolationError(f"not done {BOUND_S:g} s after the last fault: {late}")
            await anyio.sleep(1.0)

    def _check_completed(self) -> None:
        for problem in self._tools.problems:
            raise ViolationError(problem)
        asked = {turn: num for c in self._clients for turn, num in c.num_attempts.items()}
        for engine in self._engines:
            for turn, num in engine.num_completed.items():
                if turn.startswith("turn:agent"):
                    continue  # the SDK asks again by itself
                if turn not in asked:
                    raise ViolationError(f"{turn} was run and never asked for")
                if num > asked[turn]:
                    raise ViolationError(f"{turn} was run {num} times and asked for {asked[turn]}")

    def _check_the_end(self) -> None:
        gateway = self._gateway
        gateway.check_invariants()
        self._check_completed()
        service, servers = gateway.service, gateway.servers
        if service is None or servers is None:
            raise ViolationError("the gateway did not come back")
        left = [reply for engine in self._engines for reply in engine.running]
        if left:
            raise ViolationError(f"{len(left)} requests still run on engines")
        at_engines = sum(len(slot.turns) for slot in servers.fleet.slots)
        held = service.scheduler.num_held_turns
        if at_engines or held:
            raise ViolationError(f"turns are left: {at_engines} at engines, {held} held")
        if servers.fleet.num_up != len(self._engines):
            raise ViolationError(f"only {servers.fleet.num_up} engines are up")
        self._check_residency(servers)

    def _check_residency(self, servers: VllmServers) -> None:
        """Raise where KV is claimed that is not there."""
        by_url = {engine.url: engine for engine in self._engines}
        for slot in servers.fleet.slots:
            if slot.address is None:
                continue
            engine = by_url[slot.address.url]
            for client in self._clients:
                claimed = servers.probe.residency.num_cached_tokens(
                    slot.replica_id, SessionId(client.name), float("inf")
                )
                there = engine.kv.num_there(chat_words(client.messages))
                if claimed > there:
                    raise ViolationError(
                        f"engine {engine.number} is said to have {claimed} tokens of "
                        f"{client.name}, and has {there}"
                    )
