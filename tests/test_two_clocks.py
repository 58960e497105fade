"""The discrete-event driver, virtual time and real time take the same decisions.

The same workload three ways: from the heap of ``RackSimulation``; through openai's client, the
endpoint and the async stack in virtual time; and the same over loopback, twenty times as fast as
real time.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import anyio
import httpx2
import openai
import pytest
import uvicorn

from agent_runtime.clock import Clock
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.rack_simulation import RackSimulation, SimulationOptions
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop
from agent_runtime.workload.coding_agents import coding_agent_sessions
from agent_runtime.workload.session_script import (
    ScriptedTurn,
    SessionScript,
    Workload,
    start_times,
)
from hw_model.claim import Band
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.ttft_boundary import TtftBoundary
from scheduler.commands import Dispatch, Drop, Pull, Refuse, Release, Retain
from scheduler.decision import Decision
from scheduler.events import (
    GapHinted,
    PrefillEnded,
    ReplicaDown,
    ReplicaUp,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import SessionId, TurnId
from tests.engines import deployment
from tests.replayed_workload import Replay

MODEL = "qwen3-8b"
SEED = 5


def rack(num_replicas: int = 3):
    return deployment(MODEL, num_replicas=num_replicas, block_size_tokens=64)


def simulated(workload: Workload, policy: str, window_s: float) -> list[Decision]:
    decisions: list[Decision] = []
    options = SimulationOptions(
        policy=policy, seed=SEED, start_window_s=window_s, ttft_boundary=TtftBoundary.CLIENT
    )
    RackSimulation(workload, rack(), options, on_decision=decisions.append).run()
    return decisions


def service(policy: str, clock: Clock, decisions: list[Decision], boundary: TtftBoundary):
    options = ServiceOptions(
        Band.BASE, policy, EngineLimits(), boundary, any_model_name=True, measured=True
    )
    return EmulatedService(
        rack(), options, clock, SeededModel(), epoch_s=lambda: 0.0, on_decision=decisions.append
    )


def lived_virtually(
    workload: Workload, policy: str, window_s: float, *, streaming: bool
) -> list[Decision]:
    decisions: list[Decision] = []
    clock = VirtualClock()
    emulated = service(policy, Clock(origin_s=0.0), decisions, TtftBoundary.CLIENT)

    async def main() -> None:
        transport = StreamingAsgiTransport(emulated.app)
        async with httpx2.AsyncClient(transport=transport, timeout=None) as http:
            client = openai.AsyncOpenAI(
                api_key="-", base_url="http://rack/v1", http_client=http, max_retries=0
            )
            starts_s = start_times(workload, window_s, SEED)
            await Replay(client, workload, starts_s, streaming=streaming).run()

    def loop() -> VirtualTimeLoop:
        return VirtualTimeLoop(clock=clock, world=emulated.rack)

    anyio.run(main, backend_options={"loop_factory": loop})
    emulated.rack.check_invariants()
    emulated.scheduler.check_invariants()
    return decisions


@dataclass(frozen=True)
class Row:
    """A decision, its turn named by its session: drivers number turns as they like."""

    what: str
    session: str
    num_tokens: int = 0
    replica: int | None = None


def rows(decisions: Sequence[Decision]) -> list[tuple[float, Row]]:  # noqa: C901 - flat
    """Return what was decided when, in order of time."""
    whose: dict[TurnId, str] = {}

    def rows_of(decision: Decision) -> Iterator[Row]:
        event = decision.event
        match event:
            case TurnArrived():
                whose[event.turn_id] = event.session_id
                yield Row(
                    "arrived", event.session_id, event.num_prompt_tokens + event.num_output_tokens
                )
            case PrefillEnded():
                yield Row("prefilled", whose[event.turn_id], event.num_cached_tokens)
            case TurnEnded():
                yield Row("ended", whose[event.turn_id], event.num_context_tokens)
            case SessionClosed():
                yield Row("closed", event.session_id)
            case Woken() | GapHinted() | ReplicaDown() | ReplicaUp():
                pass
        for command in decision.commands:
            match command:
                case Dispatch():
                    yield Row("dispatch", whose[command.turn_id], replica=command.replica_id)
                case Pull() | Retain() | Release() | Drop():
                    yield Row(type(command).__name__, command.session_id, 0, command.replica_id)
                case Refuse():
                    yield Row("refuse", whose[command.turn_id])

    return [(decision.now_s, row) for decision in decisions for row in rows_of(decision)]


def by_instant(timed: list[tuple[float, Row]]) -> list[tuple[float, Row]]:
    """Order what happens in one step of an engine by session.

    Where two turns end in one step, a client closes its session after both ends.
    """
    return sorted(timed, key=lambda one: (round(one[0], 6), one[1].session))


def short_agents(num_sessions: int, max_turns: int) -> Workload:
    """Return generated coding agents, each cut to its first turns."""
    whole = coding_agent_sessions(num_sessions, seed=SEED, max_gap_s=10)
    sessions = tuple(
        SessionScript(script.session_id, script.turns[:max_turns]) for script in whole.sessions
    )
    return Workload("short", whole.block_size_tokens, sessions)


@pytest.mark.parametrize(
    ("policy", "streaming"),
    [("panjiu", False), ("least_loaded", False), ("round_robin", False), ("panjiu", True)],
)
def test_virtual_time_takes_the_decisions_of_the_discrete_event_driver(
    policy: str, streaming: bool
) -> None:
    workload = short_agents(12, max_turns=4 if streaming else 8)
    expected = by_instant(rows(simulated(workload, policy, window_s=20)))
    lived = by_instant(rows(lived_virtually(workload, policy, 20, streaming=streaming)))
    assert len(expected) > 100
    assert [row for _, row in lived] == [row for _, row in expected]
    for (at_s, _), (expected_s, _) in zip(lived, expected, strict=True):
        assert at_s == pytest.approx(expected_s, abs=1e-6)


def spaced_agents() -> Workload:
    """Return agents born two seconds apart, too different in size for jitter to decide."""
    sessions = []
    for number in range(8):
        turns, isl = [], 3_000 * (number + 1)
        first_own = 1_000_000 * (number + 1)
        for _ in range(4):
            num_own = (isl + 40) // 64 - 20
            runs = ((0, 19), (first_own, first_own + num_own - 1))
            turns.append(ScriptedTurn(isl, 40, 4.0, runs))
            isl += 1_000
        sessions.append(SessionScript(SessionId(f"agent-{number}"), tuple(turns)))
    starts_s = tuple(2.0 * number for number in range(8))
    return Workload("spaced", 64, tuple(sessions), arrives_s=starts_s)


async def lived_over_loopback(
    workload: Workload, speed: float
) -> tuple[list[Decision], dict[tuple[str, int], int]]:
    decisions: list[Decision] = []
    clock = Clock(speed)
    emulated = service("home_for_life", clock, decisions, TtftBoundary.ENGINE)
    config = uvicorn.Config(emulated.app, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(emulated.rack.run)
            tasks.start_soon(server.serve, [listener])
            async with openai.AsyncOpenAI(api_key="-", base_url=url, max_retries=0) as client:
                starts_s = start_times(workload, 0, SEED)
                replay = Replay(client, workload, starts_s, speed=speed, streaming=True)
                await replay.run()
            server.should_exit = True
            await anyio.sleep(0.2)
            tasks.cancel_scope.cancel()
    return decisions, replay.num_cached_tokens


def by_session(decisions: Sequence[Decision]) -> dict[str, list[Row]]:
    sessions: dict[str, list[Row]] = {}
    for _, row in rows(decisions):
        sessions.setdefault(row.session, []).append(row)
    return sessions


def test_real_time_agrees_logically_with_virtual_time_and_the_discrete_event_driver() -> None:
    workload = spaced_agents()
    expected = by_session(simulated(workload, "home_for_life", window_s=0))
    assert by_session(lived_virtually(workload, "home_for_life", 0, streaming=True)) == expected
    decisions, cached = anyio.run(lived_over_loopback, workload, 20.0)
    assert by_session(decisions) == expected
    assert len({row.replica for rows in expected.values() for row in rows} - {None}) == 3
    for script in workload.sessions:
        for index, before in enumerate(script.turns[:-1]):
            whole_blocks = (before.isl_tokens + before.osl_tokens - 1) // 64 * 64
            assert cached[script.session_id, index + 1] == whole_blocks
