"""The backend of real engines: runs turns on them, and knows which ones there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress

import anyio
import msgspec
from anyio.abc import TaskGroup

from agent_runtime.backends.vllm_servers.engine_discovery import EngineDirectory
from agent_runtime.backends.vllm_servers.engine_errands import EngineErrands
from agent_runtime.backends.vllm_servers.engine_fleet import (
    EngineAddress,
    EngineFleet,
    EngineSlot,
    SlotState,
)
from agent_runtime.backends.vllm_servers.engine_http import (
    EngineHttp,
    EngineReply,
    EngineUnreachableError,
)
from agent_runtime.backends.vllm_servers.engine_turn import EngineTurn
from agent_runtime.backends.vllm_servers.engine_watch import EngineWatch
from agent_runtime.backends.vllm_servers.kv_event_lines import OpenEventLines
from agent_runtime.backends.vllm_servers.servers_probe import ServersProbe
from agent_runtime.backends.vllm_servers.zmq_event_lines import zmq_event_lines
from agent_runtime.clock import Clock
from agent_runtime.engine_call import EngineCall, ReplyFacts, with_members
from agent_runtime.errors import (
    BackendError,
    BackendStoppedError,
    EngineLostError,
    InternalError,
    NoEngineError,
)
from agent_runtime.session_headers import SESSION_HEADER, header_of
from agent_runtime.turns import TurnProgress, TurnRequest
from scheduler.commands import KvCommand
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.measured_cost import MeasuredCost

END_S = 1.0
"""For the end of a reply that has said all; after that its connection is closed."""

PRIORITY_HEADER = "x-vllm-priority"
"""What an id keeps in a header; the rest is percent-encoded."""


class VllmServers:
    """A ``Backend`` of vLLM servers; ``run`` looks after them.

    Args:
        fleet: Their slots.
        http: How they are reached.
        directory: Which ones are wanted.
        clock: Real time.
        poll_s: Between two looks at an engine.
        stall_s: An engine that is down and has sent nothing for a turn for so long is given up.
        event_lines: How KV events come.

    Attributes:
        probe: What is known of them.
        errands: What they are asked beside turns.
        cost: Learns from the turns' times, if it is one that does.

    Invariant: a turn is in ``_turns`` from ``submit`` until its engine has answered it or is told
        to stop.
    """

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        fleet: EngineFleet,
        http: EngineHttp,
        directory: EngineDirectory,
        clock: Clock,
        *,
        poll_s: float = 1.0,
        stall_s: float = 5.0,
        event_lines: OpenEventLines = zmq_event_lines,
    ) -> None:
        self.fleet = fleet
        self.probe = ServersProbe(fleet)
        self.cost: MeasuredCost | None = None
        self.errands = EngineErrands(fleet, http)
        self._http = http
        self._directory = directory
        self._clock = clock
        self._poll_s = poll_s
        self._stall_s = stall_s
        self._event_lines = event_lines
        self._turns: dict[TurnId, EngineTurn] = {}
        self._wanted: list[EngineAddress] = []
        self._stopped = False
        self._tasks: TaskGroup | None = None
        self._alarm: tuple[float, Callable[[float], None]] | None = None
        self._alarm_set = anyio.Event()

    async def run(self) -> None:
        """Find engines, look after them and wake the scheduler, until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                tasks.start_soon(self._ring)
                async with aclosing(self._directory.changes()) as changes:
                    async for wanted in changes:
                        self._wanted = wanted
                        self._reconcile(tasks)
            finally:
                self._tasks = None

    def submit(
        self, replica_id: ReplicaId, request: TurnRequest, priority: int = 0
    ) -> AsyncIterator[TurnProgress]:
        """Return a turn that is sent to its engine when its progress is first asked for.

        Raises:
            BackendStoppedError: ``stop`` was called.
            NoEngineError: None is up.
            EngineLostError: This one just went down.
        """
        if self._stopped:
            raise BackendStoppedError
        call, slot = request.call, self.fleet.slots[replica_id]
        if call is None:
            raise InternalError(
                f"turn {request.turn_id} says nothing that an engine could be asked"
            )
        if slot.state is not SlotState.UP or slot.address is None:
            if self.fleet.num_up == 0:
                raise NoEngineError
            raise EngineLostError(
                f"engine {replica_id} is down: {slot.problem}", replica_id=replica_id, began=False
            )
        num_cached = self.probe.num_cached_tokens(replica_id, request.block_hashes)
        self.probe.turn_sent(request.block_hashes)
        turn = self._turns[request.turn_id] = EngineTurn(
            self._http,
            slot.address.url + call.path,
            _as_sent(call, request, priority),
            replica_id=replica_id,
            listener=_Listener(self, slot, request),
            num_cached_tokens=min(num_cached, request.num_prompt_tokens),
        )
        slot.turns[request.turn_id] = request.session_id
        return turn

    def end_output(self, replica_id: ReplicaId, turn_id: TurnId, num_tokens: int) -> None:
        """Nothing: a real engine ends its turns itself."""

    def abort(self, replica_id: ReplicaId, turn_id: TurnId) -> None:  # noqa: ARG002 - protocol
        """Close a turn's connection, at which vLLM frees its KV."""
        turn = self._turns.get(turn_id)
        if turn is not None:
            turn.close()

    def carry_out(self, command: KvCommand, block_hashes: Sequence[int], now_s: float) -> None:
        """Nothing: stock vLLM neither keeps nor moves KV when told to."""

    def session_closed(self, session_id: SessionId) -> None:
        """Forget a session."""
        self.probe.forget(session_id)

    def call_at(self, at_s: float, wake: Callable[[float], None]) -> None:
        """Call back at a time; instead of what was asked for before."""
        self._alarm = at_s, wake
        self._alarm_set.set()

    def unready(self) -> BackendError | None:
        """Return why no turns are taken; None while they are."""
        if self._stopped:
            return BackendStoppedError()
        return None if self.fleet.num_up else NoEngineError()

    def stop(self) -> None:
        """Refuse new turns and end those under way."""
        self._stopped = True
        for turn in list(self._turns.values()):
            turn.close()

    def turn_over(self, slot: EngineSlot, request: TurnRequest) -> None:
        """Take a turn off the books."""
        self._turns.pop(request.turn_id, None)
        slot.turns.pop(request.turn_id, None)

    def read_to_the_end(self, reply: EngineReply) -> None:
        """Let a reply that has said all come to its end, for its connection to serve others."""
        if reply.is_at_end or self._tasks is None:
            reply.close()
        else:
            self._tasks.start_soon(_read_to_the_end, reply)

    def now_s(self) -> float:
        """Return the clock's time."""
        return self._clock.now_s()

    def _reconcile(self, tasks: TaskGroup) -> None:
        """Give the engines wanted their slots, and look after the new ones."""
        for slot in self.fleet.reconcile(self._wanted):
            tasks.start_soon(self._watch, slot, tasks)

    async def _watch(self, slot: EngineSlot, tasks: TaskGroup) -> None:
        """Look after an engine until it leaves; then another one may have its slot."""
        watch = EngineWatch(
            slot,
            self.fleet,
            self._http,
            self.probe,
            lines=self._event_lines,
            now_s=self._clock.now_s,
            poll_s=self._poll_s,
        )
        await watch.run(self._give_up_stalled)
        self._reconcile(tasks)

    def _give_up_stalled(self, slot: EngineSlot) -> None:
        now_s = self._clock.now_s()
        for turn_id in list(slot.turns):
            self._turns[turn_id].break_off_if_stalled(now_s, self._stall_s)

    async def _ring(self) -> None:
        """Call back when it is time."""
        while True:
            alarm = self._alarm
            wait_s = float("inf")
            if alarm is not None:
                wait_s = max(0.0, self._clock.deadline(alarm[0]) - anyio.current_time())
            self._alarm_set = anyio.Event()
            with anyio.move_on_after(wait_s):
                await self._alarm_set.wait()
                continue
            if alarm is not None and self._alarm is alarm:
                self._alarm = None
                alarm[1](self._clock.now_s())


class _Listener:
    """Tells the fleet, the probe and the cost model how a turn goes."""

    __slots__ = ("_alone", "_request", "_sent_s", "_servers", "_slot", "_waits", "first_token_s")

    def __init__(self, servers: VllmServers, slot: EngineSlot, request: TurnRequest) -> None:
        self._servers = servers
        self._slot = slot
        self._request = request
        self._sent_s = servers.now_s()
        self._alone = slot.num_prefilling == 0
        self._waits = True
        self.first_token_s: float | None = None
        slot.num_prefilling += 1

    def answered(self) -> None:
        self._slot.breaker.succeeded()
        self._slot.num_answers += 1

    def failed(self, problem: str, *, certain: bool) -> None:
        self._servers.fleet.fail(self._slot, self._servers.now_s(), problem, certain=certain)

    def first_token(self) -> None:
        self.first_token_s = self._servers.now_s()
        self._prefilled()

    def said_all(self, reply: EngineReply) -> None:
        self._servers.read_to_the_end(reply)

    def ended(self, call: EngineCall) -> None:
        self._prefilled()
        servers, request, facts = self._servers, self._request, call.reader.facts()
        if facts.num_prompt_tokens is not None:
            num_context = facts.num_prompt_tokens + facts.num_output_tokens
            servers.probe.turn_ended(self._slot.replica_id, request.session_id, num_context)
            if self._request.streams and servers.cost is not None:
                self._teach(servers.cost, facts)
        servers.turn_over(self._slot, request)

    def _teach(self, cost: MeasuredCost, facts: ReplyFacts) -> None:
        """Have the cost model learn from a streamed turn; a whole one tells no first token."""
        first_s = self.first_token_s
        if first_s is None or facts.num_prompt_tokens is None:
            return
        if self._alone:
            num_new = facts.num_prompt_tokens - (facts.num_cached_tokens or 0)
            cost.observe(num_new, first_s - self._sent_s)
        if facts.num_output_tokens > 1:
            seconds = self._servers.now_s() - first_s
            cost.observe_decode(seconds / (facts.num_output_tokens - 1))

    def _prefilled(self) -> None:
        if self._waits:
            self._waits = False
            self._slot.num_prefilling -= 1


async def _read_to_the_end(reply: EngineReply) -> None:
    with anyio.move_on_after(END_S), suppress(EngineUnreachableError):
        while await reply.next_bytes():
            pass
    reply.close()


def _as_sent(call: EngineCall, request: TurnRequest, priority: int) -> EngineCall:
    """Return a call with its session and its salt, and a priority unless the caller set one."""
    if call.has_priority:
        priority = 0
    members: dict[str, object] = {}
    headers = call.headers
    if request.cache_salt is not None:
        members["cache_salt"] = request.cache_salt
    if call.takes_members:
        members["session_id"] = request.session_id
        if priority:
            members["priority"] = priority
    else:
        headers = {**headers, SESSION_HEADER: header_of(request.session_id)}
        if priority:
            headers[PRIORITY_HEADER] = str(priority)
    added = msgspec.json.encode(members)[1:-1]
    return _with(call, with_members(call.body, added), headers)


def _with(call: EngineCall, body: bytes, headers: Mapping[str, str]) -> EngineCall:
    return EngineCall(
        call.path,
        body,
        call.reader,
        headers,
        call.gap_after,
        has_priority=call.has_priority,
        takes_members=call.takes_members,
    )
