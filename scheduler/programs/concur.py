"""CONCUR: as many agents at a time as the KV cache bears, found as TCP finds its window.

Each replica has a window of agents that may run, tool gaps included. It grows by two while little
KV is in use, and halves when much is and yet few prompts are found there: the agents evict each
other. An agent over the window is paused when its turn ends.

Source: CONCUR (also PACE), arXiv 2601.22705: U < 0.2: W += 2; U > 0.5 and H < 0.2: W *= 0.5; else
W stays; U is KV usage, H the hit rate. The paper has one server; a rack has one window a replica.
"""

from __future__ import annotations

from scheduler.ids import ReplicaId
from scheduler.programs.program import Program, ProgramTable
from scheduler.programs.replica_load import idle_replicas, kv_usage, least_loaded
from scheduler.programs.ticker import Ticker
from scheduler.rack import Rack
from scheduler.session import Session, Turn

LOW_USAGE, HIGH_USAGE = 0.2, 0.5
LOW_HIT_RATE = 0.2
ADDED_AGENTS, KEPT_SHARE = 2, 0.5
CONTROL_S = 60.0
"""Between two decisions. The paper does not say. With contexts that take ten seconds to compute, a
hit rate over less says nothing, and the window opens before anybody notices that it is too wide."""


def next_window(window: float, kv_usage: float, hit_rate: float | None) -> float:
    """Return the window after one decision, at least one agent.

    Args:
        window: Before it, in agents.
        kv_usage: Share of KV blocks that requests hold.
        hit_rate: Of the prompt tokens since the decision before; None without prompts.
    """
    if kv_usage < LOW_USAGE:
        return window + ADDED_AGENTS
    if kv_usage > HIGH_USAGE and hit_rate is not None and hit_rate < LOW_HIT_RATE:
        return max(1.0, window * KEPT_SHARE)
    return window


class AgentWindow:
    """The agents that may run on one replica.

    Attributes:
        size: How many, in agents; not whole after it was halved.
        agents: Those that may.
    """

    __slots__ = ("_num_cached_tokens", "_num_prompt_tokens", "agents", "size")

    def __init__(self) -> None:
        self.size = float(ADDED_AGENTS)
        self.agents: dict[Program, None] = {}
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0

    @property
    def num_free(self) -> int:
        """Agents that may join; negative when some must go."""
        return int(self.size) - len(self.agents)

    def saw_prompt(self, num_prompt_tokens: int, num_cached_tokens: int) -> None:
        """Take note of a prompt that was computed."""
        self._num_prompt_tokens += num_prompt_tokens
        self._num_cached_tokens += num_cached_tokens

    def control(self, kv_usage: float) -> None:
        """Decide anew; a window that agents do not fill must not grow, or it would say nothing."""
        prompt = self._num_prompt_tokens
        size = next_window(
            self.size, kv_usage, self._num_cached_tokens / prompt if prompt else None
        )
        self._num_prompt_tokens = self._num_cached_tokens = 0
        if size > self.size:
            size = max(self.size, min(size, len(self.agents) + ADDED_AGENTS))
        self.size = size


class Concur:
    """Admits agents, first come first served; one that was paused stays with its replica.

    Invariant: a program is in the window of its replica exactly while it is not paused.
    """

    def __init__(self, num_replicas: int) -> None:
        self._programs = ProgramTable()
        self._windows = [AgentWindow() for _ in range(num_replicas)]
        self._ticker = Ticker(CONTROL_S)

    @property
    def next_wake_s(self) -> float | None:
        """When windows are next decided on; never while no turn waits or runs."""
        return self._ticker.next_s

    def turn_arrived(self, turn: Turn, rack: Rack) -> None:
        """Run it if its agent is in the window, or there is room for it."""
        program = self._programs.arrived(turn)
        if program.replica is not None and not program.is_paused:
            program.run(rack, program.replica)
        else:
            program.is_paused = True
            self._admit(rack)
        self._ticker.want(rack.now_s)

    def prefill_ended(self, turn: Turn, num_cached_tokens: int, rack: Rack) -> None:  # noqa: ARG002 - protocol
        """Take note of the hit rate."""
        if turn.replica_id is not None:
            window = self._windows[turn.replica_id]
            window.saw_prompt(turn.num_prompt_tokens, num_cached_tokens)

    def turn_ended(self, turn: Turn, rack: Rack) -> None:
        """Pause the agent if the window is too small for it: a step's boundary."""
        program = self._programs.ended(turn, rack.now_s)
        replica = program.replica
        if replica is not None and not program.is_paused and not program.is_reasoning:
            window = self._windows[replica]
            if window.num_free < 0:
                del window.agents[program]
                program.is_paused = True
        self._admit(rack)

    def session_closed(self, session: Session, rack: Rack) -> None:
        """Make room for another agent."""
        program = self._programs.forget(session)
        if program.replica is not None:
            self._windows[program.replica].agents.pop(program, None)
        self._admit(rack)

    def woken(self, rack: Rack) -> None:
        """Decide on the windows."""
        if not self._ticker.rings(rack.now_s):
            return
        for at, window in enumerate(self._windows):
            window.control(kv_usage(rack, ReplicaId(at)))
        self._admit(rack)
        if self._programs.any_reasoning():
            self._ticker.want(rack.now_s)

    def _admit(self, rack: Rack) -> None:
        for program in self._programs.waiting():
            replica = program.replica
            if replica is None:
                replica = least_loaded([-window.num_free for window in self._windows], rack)
            if program.is_paused and self._windows[replica].num_free > 0:
                self._let_in(program, replica, rack)
        for replica in idle_replicas(rack):
            homes = (replica, None)
            first = next((one for one in self._programs.waiting() if one.replica in homes), None)
            if first is not None:
                self._let_in(first, replica, rack)

    def _let_in(self, program: Program, replica_id: ReplicaId, rack: Rack) -> None:
        program.is_paused = False
        self._windows[replica_id].agents[program] = None
        program.run(rack, replica_id)
