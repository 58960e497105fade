"""What an agent session will ask for, turn by turn; nothing about where or how fast it runs.

A script is closed-loop: a turn arrives ``gap_s`` after the turn before it ended and every sub-agent
which that turn started has ended. How long a turn takes is the rack's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_runtime.workload.block_id_runs import BlockIdRun
from agent_runtime.workload.published_figure import PublishedFigure, as_note
from scheduler.events import NO_HINT, GapHint
from scheduler.ids import SessionId


@dataclass(frozen=True, slots=True)
class ScriptedTurn:
    """One model call.

    Attributes:
        isl_tokens: Prompt length, the whole context, >= 1.
        osl_tokens: Tokens the model will generate, >= 1.
        gap_s: Seconds from the end of the previous turn (and of its sub-agents) to this arrival.
        block_id_runs: Ids of the leading full KV blocks of prompt + output, in order, canonical
            and unique across the workload. An id stands for its block *and all before it* (a
            chained hash): equal ids are equal prefixes. Covers at least the prompt's full
            blocks, and those of the output if a later prompt is known to contain it.
        children: Sub-agents that start when this turn ends. The next turn waits for all of them.
        then: What the session does after it, as the reply tells whoever reads it.
    """

    isl_tokens: int
    osl_tokens: int
    gap_s: float
    block_id_runs: tuple[BlockIdRun, ...]
    children: tuple[SessionScript, ...] = ()
    then: GapHint = NO_HINT


@dataclass(frozen=True, slots=True)
class SessionScript:
    """One agent's life: its turns in order. Sub-agents are scripts of their own inside the turns.

    Attributes:
        session_id: Unique in the workload, sub-agents included.
        start_delay_s: For a sub-agent, seconds after its parent's turn ended; else 0.
    """

    session_id: SessionId
    turns: tuple[ScriptedTurn, ...]
    start_delay_s: float = 0.0

    def num_turns(self) -> int:
        """Return the number of model calls, sub-agents' included."""
        return sum(1 + sum(child.num_turns() for child in turn.children) for turn in self.turns)

    def peak_context_tokens(self) -> int:
        """Return the longest context (prompt + output) of any call, sub-agents' included."""
        return max(
            (
                max(
                    [turn.isl_tokens + turn.osl_tokens]
                    + [child.peak_context_tokens() for child in turn.children]
                )
                for turn in self.turns
            ),
            default=0,
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """Sessions that run together.

    Attributes:
        name: What a report calls it.
        block_size_tokens: Tokens per KV block that ``block_id_runs`` count in, and the engine.
        notes: What a reader of the report should know about how the scripts were made.
        arrives_s: When each session starts, one a session, rising; without it they start at random.
        figures: What a generator made, beside what was published.
    """

    name: str
    block_size_tokens: int
    sessions: tuple[SessionScript, ...]
    notes: tuple[str, ...] = ()
    arrives_s: tuple[float, ...] | None = None
    figures: tuple[PublishedFigure, ...] = ()

    def report_notes(self) -> tuple[str, ...]:
        """Return the notes, and the figures as one of them."""
        return (*self.notes, as_note(self.figures)) if self.figures else self.notes


def start_times(workload: Workload, window_s: float, seed: int) -> tuple[float, ...]:
    """Return when each session starts: when it came, or at random in ``[0, window_s)``."""
    if workload.arrives_s is not None:
        return workload.arrives_s
    drawn = np.random.default_rng([seed, 0]).uniform(0, window_s, len(workload.sessions))
    return tuple(drawn.tolist())
