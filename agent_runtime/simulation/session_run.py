"""A session script being lived: which turn is next, what its context is, whom it waits for."""

from __future__ import annotations

from dataclasses import dataclass

from agent_runtime.workload.block_id_runs import (
    BlockIdRun,
    clipped,
    common_prefix,
    num_blocks,
)
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript


class ContextChain:
    """The block hashes of a context that mostly grows at its end.

    ``retarget`` costs O(blocks that differ), so following a session costs O(appended) a turn.
    """

    __slots__ = ("_runs", "hashes")

    def __init__(self) -> None:
        self.hashes: list[int] = []
        self._runs: tuple[BlockIdRun, ...] = ()

    def retarget(self, runs: tuple[BlockIdRun, ...]) -> int:
        """Make ``hashes`` spell out ``runs``; return how many leading blocks stayed."""
        kept = common_prefix(self._runs, runs)
        del self.hashes[kept:]
        for first, last in clipped(runs, kept, num_blocks(runs)):
            self.hashes.extend(range(first, last + 1))
        self._runs = runs
        return kept


@dataclass(slots=True)
class ModelTime:
    """Seconds a top-level session and its sub-agents spent in model calls, and would have alone."""

    actual_s: float = 0.0
    solo_s: float = 0.0


class SessionRun:
    """One script on its way through the rack.

    Invariant: at most one turn is under way; ``num_running_children > 0`` only between turns.
    """

    __slots__ = (
        "chain",
        "failed",
        "first_token_s",
        "model_time",
        "next_turn",
        "num_computed_tokens",
        "num_reusable_tokens",
        "num_running_children",
        "parent",
        "script",
        "sent_s",
        "started_s",
    )

    def __init__(self, script: SessionScript, started_s: float, parent: SessionRun | None) -> None:
        self.script = script
        self.parent = parent
        self.started_s = started_s
        self.next_turn = 0  # index of the turn under way, or of the next one to arrive
        self.chain = ContextChain()
        self.num_computed_tokens = 0  # context whose KV the latest turn left behind
        self.num_reusable_tokens = 0  # of the prompt under way, what the turn before had computed
        self.num_running_children = 0
        self.sent_s = started_s  # the turn under way, or the next one
        self.first_token_s: float | None = None
        self.failed = False
        self.model_time: ModelTime = ModelTime() if parent is None else parent.model_time

    @property
    def turn(self) -> ScriptedTurn:
        """The turn under way, or the next one to arrive."""
        return self.script.turns[self.next_turn]

    @property
    def is_done(self) -> bool:
        """Whether every turn has ended."""
        return self.next_turn == len(self.script.turns)

    def arrive(self, block_size_tokens: int) -> None:
        """Begin the next turn: bring the context up to its prompt."""
        turn = self.turn
        self.first_token_s = None
        kept_tokens = self.chain.retarget(turn.block_id_runs) * block_size_tokens
        last_hit = (turn.isl_tokens - 1) // block_size_tokens * block_size_tokens
        computed = self.num_computed_tokens // block_size_tokens * block_size_tokens
        self.num_reusable_tokens = min(kept_tokens, computed, last_hit)

    def end_turn(self) -> ScriptedTurn:
        """End the turn under way and return it."""
        turn = self.turn
        # The last token generated is never fed back, so its KV is never computed.
        self.num_computed_tokens = turn.isl_tokens + turn.osl_tokens - 1
        self.next_turn += 1
        return turn

    def fail(self) -> None:
        """Mark this session and whoever waits for it as failed."""
        run: SessionRun | None = self
        while run is not None:
            run.failed = True
            run = run.parent
