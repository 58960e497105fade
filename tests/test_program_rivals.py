"""Whole-agent policies of others: each formula against an example worked by hand."""

from collections.abc import Sequence

import pytest

from scheduler.cluster_scheduler import ClusterScheduler
from scheduler.commands import Command, Dispatch
from scheduler.events import (
    NO_HINT,
    GapHint,
    PrefillEnded,
    SessionClosed,
    TurnArrived,
    TurnEnded,
    Woken,
)
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.policies import make_policy
from scheduler.programs.call_times import CallTimes
from scheduler.programs.concur import AgentWindow, next_window
from scheduler.programs.plas import call_priority, service_class
from scheduler.programs.thunderagent import best_fit_decreasing
from tests.racks import policy_setup

CAPACITY = 10_000


class Probe:
    """Replicas that report what a test has set."""

    def __init__(self) -> None:
        self.usage = 0.0
        self.waiting = 0
        self.cached_blocks = 0

    def num_waiting(self, replica_id: ReplicaId) -> int:
        return self.waiting

    def num_running(self, replica_id: ReplicaId) -> int:
        return 0

    def kv_usage(self, replica_id: ReplicaId) -> float:
        return self.usage

    def num_cached_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return self.cached_blocks

    def num_host_blocks(self, replica_id: ReplicaId, block_hashes: Sequence[int]) -> int:
        return 0


class Fleet:
    """A scheduler under one policy, and what it has done."""

    def __init__(
        self, policy: str, num_replicas: int = 1, host: int = 0, probe: Probe | None = None
    ) -> None:
        setup = policy_setup(num_replicas, CAPACITY, host)
        self.scheduler = ClusterScheduler(setup.fleet, make_policy(policy, setup), probe=probe)
        self.now_s = 0.0
        self.turns: dict[str, int] = {}
        self.commands: list[Command] = []

    def arrive(self, session: str, prompt: int = 1000, at_s: float | None = None) -> None:
        """Send a session's next turn."""
        self._to(at_s)
        self.turns[session] = self.turns.get(session, 0) + 1
        event = TurnArrived(TurnId(self._turn(session)), SessionId(session), prompt, 100)
        self._do(event)

    def prefill(self, session: str, cached: int = 0, at_s: float | None = None) -> None:
        """Give its turn the first token."""
        self._to(at_s)
        self._do(PrefillEnded(TurnId(self._turn(session)), cached))

    def end(
        self, session: str, tokens: int = 1000, gap: GapHint = NO_HINT, at_s: float | None = None
    ) -> None:
        """End its turn."""
        self._to(at_s)
        self._do(TurnEnded(TurnId(self._turn(session)), tokens, gap))

    def close(self, session: str) -> None:
        """End the session."""
        self._do(SessionClosed(SessionId(session)))

    def wait(self, until_s: float) -> None:
        """Let time pass, with the wake-ups asked for."""
        self._to(until_s)

    def replica_of(self, session: str) -> int | None:
        """Return where its latest turn runs; None while it is held."""
        turn = self._turn(session)
        for command in reversed(self.commands):
            if isinstance(command, Dispatch) and command.turn_id == turn:
                return command.replica_id
        return None

    def priority_of(self, session: str) -> int:
        """Return the priority of its latest turn."""
        turn = self._turn(session)
        (found,) = [c for c in self.commands if isinstance(c, Dispatch) and c.turn_id == turn]
        return found.priority

    def orders(self, kind: type[Command]) -> list[str]:
        """Return the sessions that commands of a kind named, in order."""
        return [c.session_id for c in self.commands if isinstance(c, kind)]  # type: ignore[union-attr]

    def _turn(self, session: str) -> str:
        return f"{session}#{self.turns[session]}"

    def _to(self, at_s: float | None) -> None:
        if at_s is None:
            return
        while (wake_s := self.scheduler.next_wake_s) is not None and wake_s <= at_s:
            self.now_s = max(self.now_s, wake_s)
            self._do(Woken())
        self.now_s = at_s

    def _do(self, event: object) -> None:
        self.commands += self.scheduler.handle(event, self.now_s)  # type: ignore[arg-type]


# CONCUR, arXiv 2601.22705


@pytest.mark.parametrize(
    ("window", "usage", "hit_rate", "after"),
    [
        (4, 0.19, 0.0, 6),  # U < 0.2: W += 2
        (4, 0.2, 0.0, 4),  # held
        (5, 0.51, 0.19, 2.5),  # U > 0.5 and H < 0.2: W *= 0.5
        (5, 0.51, 0.2, 5),
        (5, 0.5, 0.1, 5),
        (5, 0.9, None, 5),
        (1, 0.9, 0.0, 1),
    ],
)
def test_concur_adds_two_agents_or_halves(
    window: float, usage: float, hit_rate: float | None, after: float
) -> None:
    assert next_window(window, usage, hit_rate) == after


def test_a_window_that_agents_do_not_fill_does_not_grow_away_from_them() -> None:
    window = AgentWindow()
    for _ in range(50):
        window.control(kv_usage=0.0)
    assert window.size == 2


def test_concur_pauses_an_agent_over_the_window_at_the_end_of_its_step() -> None:
    probe = Probe()
    fleet = Fleet("concur", probe=probe)
    for session in "abc":
        fleet.arrive(session)
    assert [fleet.replica_of(session) for session in "abc"] == [0, 0, None], "two may run at first"
    fleet.wait(60.0)
    assert fleet.replica_of("c") == 0, "U < 0.2: two more may"
    probe.usage = 0.9
    for session in "abc":
        fleet.prefill(session, cached=100)  # H = 0.1
    fleet.wait(121.0)
    fleet.end("a")
    fleet.arrive("a")
    assert fleet.replica_of("a") is None, "three ran where two may"
    fleet.end("b")
    fleet.arrive("b")
    assert fleet.replica_of("b") == 0
    fleet.close("c")
    fleet.end("c")
    assert fleet.replica_of("a") == 0


# ThunderAgent, arXiv 2602.13692; Dynamo's thresholds: .95, .80, .85


def test_the_largest_that_fit_together_go_where_most_room_is() -> None:
    # 900 in all: 500 + 300 fit, 200 more do not, 100 more do. Placed 500, 300, 100, each where
    # most room is: of (600, 300) the first, then of (100, 300) the second, then the first.
    assert best_fit_decreasing([300, 500, 200, 100], [600, 300]) == [1, 0, None, 0]
    assert best_fit_decreasing([800], [600, 300]) == [None], "in all there is room, nowhere is"


def test_thunderagent_pauses_the_shortest_acting_programs_first_down_to_80_percent() -> None:
    fleet = Fleet("thunderagent")
    for session, tokens in (("a", 3000), ("b", 2000), ("c", 2900)):
        fleet.arrive(session, tokens)  # with 100 each: 8,200 of 8,500
    fleet.end("a", 3300)
    fleet.end("b", 2200)
    fleet.arrive("c2", 100)
    assert fleet.replica_of("c2") is None, "8,700 are there"
    fleet.end("c", 4000)  # 3,400 + 2,300 + 4,100 = 9,800, above 9,500
    fleet.arrive("c", 4000)
    fleet.wait(5.0)
    for session in "ab":
        fleet.arrive(session, 3000)
    # The shortest, b, leaves 7,500; a stays.
    assert fleet.replica_of("a") == 0
    assert fleet.replica_of("b") is None


def test_a_reasoning_program_is_marked_and_paused_when_its_turn_ends() -> None:
    fleet = Fleet("thunderagent")
    fleet.arrive("a", 4000)
    fleet.end("a", 6000)
    fleet.arrive("a", 6000)
    fleet.arrive("b", 2000)
    fleet.end("b", 3500)
    fleet.arrive("b", 3500)  # 9,700, above 9,500; both reason
    fleet.wait(5.0)
    fleet.end("b", 3600)
    fleet.arrive("b", 3700)
    assert fleet.replica_of("b") is None
    fleet.end("a", 6100, at_s=7.0)  # its weight is 2**-3 when it is looked for room, at 10 s
    fleet.wait(9.9)
    assert fleet.replica_of("b") is None
    fleet.wait(10.0)
    assert fleet.replica_of("b") == 0


def test_returning_programs_are_resumed_before_new_ones_and_the_shortest_first() -> None:
    fleet = Fleet("thunderagent")
    fleet.arrive("big", 8000)
    for session, tokens in (("new", 1000), ("newer", 500)):
        fleet.arrive(session, tokens)
    assert fleet.replica_of("new") is None
    fleet.end("big", 8000)
    fleet.wait(5.0)  # 8,000 * 2**-5 = 250
    assert [fleet.replica_of("new"), fleet.replica_of("newer")] == [0, 0]


def test_who_was_paused_for_half_an_hour_is_resumed_whatever_the_room() -> None:
    fleet = Fleet("thunderagent")
    fleet.arrive("a", 8000)
    fleet.arrive("b", 8000)
    fleet.wait(1799.0)
    assert fleet.replica_of("b") is None
    fleet.wait(1800.0)
    assert fleet.replica_of("b") == 0


# PLAS, arXiv 2502.13965


def test_the_classes_of_plas_double() -> None:
    assert [service_class(s) for s in (0, 63.9, 64, 127.9, 128, 4095, 4096, 1e9)] == [
        *(0, 0, 1, 1, 2, 6, 7, 7)
    ]


def test_a_program_that_waited_eight_times_its_service_goes_first_again() -> None:
    times = CallTimes()
    times.service_s, times.wait_s = 100.0, 799.0
    assert call_priority(times) == 1
    times.wait_s = 800.0
    assert call_priority(times) == 0


def test_plas_counts_what_a_programs_finished_calls_were_served() -> None:
    fleet = Fleet("plas", num_replicas=2)
    fleet.arrive("a", 5000)
    assert (fleet.replica_of("a"), fleet.priority_of("a")) == (0, 0)
    fleet.prefill("a", at_s=1.0)
    fleet.end("a", 5000, at_s=201.0)  # 200 s of decoding: [128, 256)
    fleet.arrive("a", 5000, at_s=202.0)
    assert (fleet.replica_of("a"), fleet.priority_of("a")) == (0, 2)
    fleet.end("a", 5000)
    fleet.arrive("b", 5000)
    fleet.arrive("a", 2049)
    assert fleet.replica_of("a") == 0, "its own, busy as it is"
    fleet.end("a", 2049)
    fleet.arrive("a", 2048)
    assert fleet.replica_of("a") == 1, "the least used one"
