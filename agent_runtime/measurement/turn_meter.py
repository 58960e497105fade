"""Measures the turns of a live runtime, whoever sends them, as a simulation measures its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from agent_runtime.measurement.summary import FloatArray, SessionCounts
from agent_runtime.measurement.turn_log import TurnLog, TurnTimes
from agent_runtime.turns import TurnProgress, TurnRequest
from hw_model.engine.solo_turn import solo_turn_s
from hw_model.step_time import StepTimeModel
from hw_model.ttft_boundary import FrontEnd
from scheduler.ids import ReplicaId, SessionId, TurnId


class _MeteredSession:
    """What is known of a session so far; one with turns side by side is as long as all of them."""

    __slots__ = (
        "actual_s",
        "block_hashes",
        "ended_s",
        "failed",
        "num_computed_tokens",
        "peak_tokens",
        "solo_s",
        "started_s",
    )

    def __init__(self, started_s: float) -> None:
        self.started_s = self.ended_s = started_s
        self.block_hashes: Sequence[int] = ()  # of the turn that ended last
        self.num_computed_tokens = 0
        self.peak_tokens = 0
        self.actual_s = self.solo_s = 0.0
        self.failed = False


class _MeteredTurn:
    """A turn under way."""

    __slots__ = ("first_token_s", "num_cached_tokens", "request", "reusable_tokens", "sent_s")

    def __init__(self, request: TurnRequest, sent_s: float, reusable_tokens: int) -> None:
        self.request = request
        self.sent_s = sent_s
        self.reusable_tokens = reusable_tokens
        self.first_token_s: float | None = None
        self.num_cached_tokens = 0


class TurnMeter:
    """A ``TurnObserver`` of the runtime.

    Every session and the blocks of its latest turn stay in memory: for runs, not for servers.

    Args:
        step_time: Of the replicas, for what a turn would take alone.
        block_size_tokens: Of their KV.
        max_num_batched_tokens: Of their engines.
        num_replicas: How many.
        front_end: What turns spend on their way to the engine.
    """

    def __init__(
        self,
        step_time: StepTimeModel,
        *,
        block_size_tokens: int,
        max_num_batched_tokens: int,
        num_replicas: int,
        front_end: FrontEnd,
    ) -> None:
        self.num_turns_by_replica = [0] * num_replicas
        self.refused_tokens: list[int] = []
        self.num_aborted_turns = 0
        self._log = TurnLog()
        self._step_time = step_time
        self._block_size_tokens = block_size_tokens
        self._max_num_batched_tokens = max_num_batched_tokens
        self._front_end = front_end
        self._sessions: dict[SessionId, _MeteredSession] = {}
        self._turns: dict[TurnId, _MeteredTurn] = {}

    @property
    def num_turns(self) -> int:
        """Turns that ended well so far."""
        return self._log.num_turns

    @property
    def num_running_turns(self) -> int:
        """Turns on a replica now."""
        return len(self._turns)

    @property
    def num_sessions(self) -> int:
        """Sessions seen so far."""
        return len(self._sessions)

    def live_sessions(self, time_s: FloatArray) -> FloatArray:
        """Return how many sessions were between their first and their latest turn at each time."""
        sessions = self._sessions.values()
        started_s = np.sort([session.started_s for session in sessions])
        ended_s = np.sort([session.ended_s for session in sessions])
        num_started = np.searchsorted(started_s, time_s, side="right")
        return (num_started - np.searchsorted(ended_s, time_s, side="left")).astype(np.float64)

    def sessions_beyond(self, num_tokens: int) -> int:
        """Return how many sessions had a longer context than this."""
        return sum(session.peak_tokens > num_tokens for session in self._sessions.values())

    def turn_dispatched(self, request: TurnRequest, replica_id: ReplicaId, sent_s: float) -> None:
        """A turn that was sent at ``sent_s`` goes to a replica."""
        session = self._session(request, sent_s)
        context_tokens = request.num_prompt_tokens + request.num_output_tokens
        session.peak_tokens = max(session.peak_tokens, context_tokens)
        reusable = self._reusable_tokens(session, request)
        self._turns[request.turn_id] = _MeteredTurn(request, sent_s, reusable)
        self.num_turns_by_replica[replica_id] += 1

    def turn_refused(self, request: TurnRequest, num_tokens: int, sent_s: float) -> None:
        """A turn needs more KV than a replica has."""
        self._session(request, sent_s).failed = True
        self.refused_tokens.append(num_tokens)

    def turn_progressed(self, turn_id: TurnId, progress: TurnProgress, now_s: float) -> None:
        """Tokens came."""
        turn = self._turns[turn_id]
        if turn.first_token_s is None:
            turn.first_token_s = now_s
        turn.num_cached_tokens = progress.num_cached_tokens

    def turn_ended(
        self, turn_id: TurnId, now_s: float, *, num_output_tokens: int, finished: bool
    ) -> None:
        """A turn is over; one that did not finish was aborted or failed."""
        turn = self._turns.pop(turn_id)
        request = turn.request
        session = self._sessions[request.session_id]
        session.ended_s = now_s
        if not finished:
            self.num_aborted_turns += 1
            return
        self._log.turn_ended(
            TurnTimes(
                sent_s=turn.sent_s,
                first_token_s=now_s if turn.first_token_s is None else turn.first_token_s,
                ended_s=now_s,
                osl_tokens=num_output_tokens,
                num_recomputed_tokens=max(0, turn.reusable_tokens - turn.num_cached_tokens),
            )
        )
        session.block_hashes = request.block_hashes
        # The last token generated is never fed back, so its KV is never computed.
        session.num_computed_tokens = request.num_prompt_tokens + num_output_tokens - 1
        session.actual_s += now_s - turn.sent_s
        before_engine_s = self._front_end.before_engine_s(request.num_prompt_tokens)
        session.solo_s += before_engine_s + solo_turn_s(
            self._step_time,
            num_prompt_tokens=request.num_prompt_tokens,
            num_cached_tokens=turn.reusable_tokens,
            num_output_tokens=num_output_tokens,
            max_num_batched_tokens=self._max_num_batched_tokens,
        )

    def close(self) -> tuple[TurnLog, SessionCounts]:
        """Take every session as ended with its latest turn; return the log and how they ended."""
        completed = [s for s in self._sessions.values() if not s.failed and s.solo_s > 0]
        for session in completed:
            jct_s = session.ended_s - session.started_s
            self._log.session_completed(jct_s, session.actual_s / session.solo_s)
        total = len(self._sessions)
        counts = SessionCounts(total=total, completed=len(completed), failed=total - len(completed))
        return self._log, counts

    def _session(self, request: TurnRequest, sent_s: float) -> _MeteredSession:
        session = self._sessions.get(request.session_id)
        if session is None:
            session = self._sessions[request.session_id] = _MeteredSession(sent_s)
        return session

    def _reusable_tokens(self, session: _MeteredSession, request: TurnRequest) -> int:
        """Return the prompt tokens that the turn before computed; O(log blocks).

        Hashes are chained: where two are equal, so are all before them.
        """
        one, other = session.block_hashes, request.block_hashes
        block = self._block_size_tokens
        last_hit_blocks = (request.num_prompt_tokens - 1) // block
        most = min(len(one), len(other), last_hit_blocks, session.num_computed_tokens // block)
        return block * bisect_left(
            range(most), 1, key=lambda index: int(one[index] != other[index])
        )
