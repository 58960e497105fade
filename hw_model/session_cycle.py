"""What a replica's sessions see, as mean values: a closed queueing network instead of a simulation.

``n`` sessions cycle: tool gap, prefill, decode. The unknown is ``y``, the turns that begin a step.
By Little's law ``y * (output - 1)`` sessions decode at a time; that gives the mean step, the step
gives the rate ``X = y / step_s``, and the ``y`` sought is where ``X * (gap + turn) = n``. A session
sees the other ``n - 1`` at their means, as in mean-value analysis, so one session alone is exact.

* Prompts that arrive during a step share the next one; the number that do is taken for Poisson.
* A prompt waits for the rest of the step it arrives in, and where prompts are longer than a step's
  token budget, for those before it: Pollaczek and Khinchine's formula, counted in steps.
* Replicas that share experts take every step together, so each step is as long as the longest of
  theirs. The batches in a pipeline follow each other, so each waits for what the others take beyond
  a plain step. Both are taken for independent otherwise.
* Where the KV of all sessions is more than the replica holds, LRU evicts the longest idle: gaps
  beyond the characteristic time lose the prefix, and the next turn computes it all again.

Source: Reiser and Lavenberg 1980 (mean-value analysis); Che, Tung and Wang 2002 (characteristic
time of an LRU cache). How near it comes to the simulator: ``benchmarks/planner_vs_simulation.py``.
Not modelled: queues for a place in the batch before all places are taken, prefixes shared between
sessions, contexts of unequal length, prefixes that are lost only in part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from hw_model.agent_load import AgentLoad, ToolGap
from hw_model.step_table import StepTable

_MISS_ITERATIONS, _MISS_TOLERANCE = 24, 2e-3
_ROOT_ITERATIONS, _ROOT_TOLERANCE = 60, 1e-7
_FULLEST = 0.9999
"""Share of the token budget that prompts may take; a queue at 1 has no end."""


StepMix: TypeAlias = list[tuple[float, float]]
"""``(share, seconds)`` of the kinds of steps there are."""


@dataclass(frozen=True, slots=True)
class Coupling:
    """What a replica's steps wait for beside itself.

    Attributes:
        group_replicas: That take every step together, this one among them.
        stages: Batches in a pipeline, this one among them.
    """

    group_replicas: int = 1
    stages: int = 1

    def coupled(self, mix: StepMix) -> StepMix:
        """Return the steps as they are with the others, who have the same mix."""
        return _behind(self.stages, _longest_of(self.group_replicas, mix))


ALONE = Coupling()


def _longest_of(replicas: int, mix: StepMix) -> StepMix:
    if replicas == 1:
        return mix
    longest, before = [], 0.0
    for share, seconds in sorted(mix, key=lambda kind: kind[1]):
        up_to = min(1.0, before + share)
        longest.append((up_to**replicas - before**replicas, seconds))
        before = up_to
    return longest


def _behind(stages: int, mix: StepMix) -> StepMix:
    """Each batch ahead delays this one by a stage's share of what it takes beyond a plain step."""
    if stages == 1:
        return mix
    plain_s = min(seconds for _, seconds in mix)
    wait_s = (stages - 1) / stages * sum(share * (seconds - plain_s) for share, seconds in mix)
    return [(share, seconds + wait_s) for share, seconds in mix]


@dataclass(frozen=True, slots=True)
class ReplicaEstimate:
    """Means over the turns of one replica.

    Attributes:
        ttft_s: Arrival to first token, waiting included.
        tpot_s: Between tokens after the first, prefill of others included.
        turns_per_s: Of the replica.
        decoding_sessions: Sessions that decode at a time.
        busy_share: Share of the time the replica computes.
        miss_share: Share of turns that find their prefix evicted.
        resident_sessions: Sessions whose KV the replica keeps, whole ones.
    """

    ttft_s: float
    tpot_s: float
    turns_per_s: float
    decoding_sessions: float
    busy_share: float
    miss_share: float
    resident_sessions: int


@dataclass(frozen=True, slots=True)
class Replica:
    """What is estimated.

    Attributes:
        table: Its step times.
        kv_tokens: KV it holds.
        max_num_seqs: Sessions it runs at once.
        coupling: What else its steps wait for.
    """

    table: StepTable
    kv_tokens: int
    max_num_seqs: int
    coupling: Coupling = ALONE


def estimate_replica(
    replica: Replica, load: AgentLoad, *, sessions: int, before_engine_s: float = 0.0
) -> ReplicaEstimate:
    """Estimate what ``sessions`` of the load's sessions see on one replica.

    Args:
        replica: Holds the KV of one session at least.
        load: Lengths and gap; its ``sessions`` are not read.
        sessions: On this replica, >= 1.
        before_engine_s: A request's way to the engine; part of TTFT.
    """
    between_s = load.gap.mean_s + before_engine_s
    kv_sessions = replica.kv_tokens / load.session_tokens
    places = max(1.0, min(float(replica.max_num_seqs), math.floor(kv_sessions)))
    miss = 1.0 if sessions > kv_sessions else 0.0

    def solved() -> _Moment:
        crowd = _Crowd(sessions, places, miss, between_s)
        return _Cycle(replica, load, crowd).solve()

    moment = solved()
    for _ in range(_MISS_ITERATIONS if miss else 0):
        new = _miss_share(load.gap, (sessions - kv_sessions) / moment.turns_per_s)
        if abs(new - miss) < _MISS_TOLERANCE:
            break
        miss = new
        moment = solved()
    turn_s = sessions / moment.turns_per_s - between_s
    active = min(1.0, max(0.0, turn_s * moment.turns_per_s / sessions))
    return ReplicaEstimate(
        ttft_s=before_engine_s
        + max(moment.ttft_s, turn_s - (load.output_tokens - 1) * moment.step_s),
        tpot_s=moment.step_s,
        turns_per_s=moment.turns_per_s,
        decoding_sessions=moment.turns_per_s * (load.output_tokens - 1) * moment.step_s,
        busy_share=1 - (1 - active) ** sessions,
        miss_share=miss,
        resident_sessions=min(sessions, int(kv_sessions)),
    )


def _miss_share(gap: ToolGap, evicted_s: float) -> float:
    """Return the share of turns that find their prefix evicted.

    Sessions without KV are those idle beyond the characteristic time ``t``, by Little's law
    ``X * E[(gap - t)+]`` of them.

    Args:
        gap: Of the sessions.
        evicted_s: Sessions too many over turns a second.
    """
    if evicted_s >= gap.mean_s:
        return 1.0
    short_s, long_s = 0.0, gap.mean_s
    while gap.mean_excess_s(long_s) > evicted_s:
        short_s, long_s = long_s, 2 * long_s
    for _ in range(30):
        middle_s = (short_s + long_s) / 2
        if gap.mean_excess_s(middle_s) > evicted_s:
            short_s = middle_s
        else:
            long_s = middle_s
    return gap.share_beyond(long_s)


@dataclass(frozen=True, slots=True)
class _Moment:
    """The replica at one ``y``.

    Attributes:
        step_s: Mean step that a decoding session sees.
        turns_per_s: ``y / step_s``.
        ttft_s: Waiting included.
        running: Sessions in the batch at a time.
        turn_s: Arrival to last token.
    """

    step_s: float
    turns_per_s: float
    ttft_s: float
    running: float
    turn_s: float


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Who cycles.

    Attributes:
        sessions: Of the replica.
        places: In the batch at a time.
        miss: Share of turns that find their prefix evicted.
        between_s: Mean time of a session outside the engine, between two turns.
    """

    sessions: int
    places: float
    miss: float
    between_s: float


class _Cycle:
    """The equations of one replica, for a given share of evicted prefixes.

    Args:
        replica: What serves them.
        load: Lengths of a turn.
        crowd: Its sessions.
    """

    def __init__(self, replica: Replica, load: AgentLoad, crowd: _Crowd) -> None:
        table, sessions, miss = replica.table, crowd.sessions, crowd.miss
        self._table, self._sessions, self._places = table, sessions, crowd.places
        self._between_s, self._coupling = crowd.between_s, replica.coupling
        self._decodes = load.output_tokens - 1
        self._others = (sessions - 1) / sessions
        kinds = ((table.warm, 1 - miss), (table.cold, miss))
        self._kinds = [(prompt, share) for prompt, share in kinds if share > 0]
        steps = [(prompt.new_tokens / table.budget, share) for prompt, share in self._kinds]
        self._prompt_steps = sum(share * each for each, share in steps)
        self._prompt_steps_squared = sum(share * each**2 for each, share in steps)

    def solve(self) -> _Moment:
        """Return the moment at which the sessions' cycles add up."""
        highest = self._sessions / max(1, self._decodes)
        if self._others:
            highest = min(highest, _FULLEST / (self._others * self._prompt_steps))
        root = _rising_root(lambda y: self._surplus(self._at(y)), highest)
        moment = self._at(root)
        if moment.running <= self._places:
            return moment
        return self._at(_rising_root(lambda y: self._at(y).running - self._places, root))

    def _surplus(self, moment: _Moment) -> float:
        return moment.turns_per_s * (self._between_s + moment.turn_s) - self._sessions

    def _at(self, y: float) -> _Moment:
        table, arrivals = self._table, self._others * y
        others_decoding = min(self._others * y * self._decodes, self._places)
        decoding = min(1 + others_decoding, max(self._places, 1.0))
        mix = self._coupling.coupled(self._steps(decoding, arrivals))
        step_s = sum(share * seconds for share, seconds in mix)
        seen_s = sum(share * seconds**2 for share, seconds in mix) / step_s
        turns_per_s = y / step_s
        beside = self._others * turns_per_s * seen_s
        own_s = sum(
            share * table.prefill_s(prompt, others_decoding, 1 + beside)
            for prompt, share in self._kinds
        )
        alone_s = own_s + self._decodes * step_s
        active = min(1.0, turns_per_s * alone_s / self._sessions)
        busy = 1 - (1 - active) ** (self._sessions - 1)
        ttft_s = own_s + busy * seen_s / 2 + self._queue_s(decoding, arrivals)
        return _Moment(
            step_s, turns_per_s, ttft_s, turns_per_s * alone_s, ttft_s + self._decodes * step_s
        )

    def _steps(self, decoding: float, arrivals: float) -> StepMix:
        """Return ``(share, seconds)`` of the kinds of steps that decoding sessions see."""
        table = self._table
        plain_s = table.decode_s(decoding)
        mix, plain_share = [], 1.0
        for prompt, share in self._kinds:
            each = arrivals * share
            if each == 0:
                continue
            some = 1 - math.exp(-each) if prompt.steps == 1 else each * prompt.steps
            together = each / some if prompt.steps == 1 else 1.0
            seconds = table.prefill_s(prompt, decoding, together) / prompt.steps
            mix.append((some, seconds))
            plain_share -= some
        # Kinds may share a step: what they take beyond a plain step adds up.
        return [*mix, (plain_share, plain_s)] if plain_share > 0 else self._crowded(mix, plain_s)

    def _crowded(self, mix: StepMix, plain_s: float) -> StepMix:
        extra_s = sum(share * (seconds - plain_s) for share, seconds in mix)
        return [(1.0, plain_s + extra_s)]

    def _queue_s(self, decoding: float, arrivals: float) -> float:
        """Wait for prompts before this one, beyond the step it arrives in.

        Source: Pollaczek-Khinchine, one server, the unit of time being a step full of prompts.
        """
        if arrivals == 0:
            return 0.0
        load = min(_FULLEST, arrivals * self._prompt_steps)
        waiting_steps = arrivals * self._prompt_steps_squared / (2 * (1 - load))
        largest, _ = self._kinds[-1]
        full_s = self._table.prefill_s(largest, decoding, largest.most_a_step) / largest.steps
        return waiting_steps * full_s


def _rising_root(function: Callable[[float], float], highest: float) -> float:
    """Return where a rising function crosses zero in ``(0, highest]``; ``highest`` if it doesn't.

    Source: regula falsi, Illinois variant (Dowell and Jarratt 1971).
    """
    low, high = 0.0, highest
    high_value = function(high)
    if high_value <= 0:
        return highest
    low_value = function(highest * 1e-9)
    if low_value >= 0:
        return highest * 1e-9
    side = 0
    for _ in range(_ROOT_ITERATIONS):
        middle = (low * high_value - high * low_value) / (high_value - low_value)
        value = function(middle)
        if value == 0:
            return middle
        if value > 0:
            high, high_value = middle, value
            low_value /= 2 if side > 0 else 1
            side = 1
        else:
            low, low_value = middle, value
            high_value /= 2 if side < 0 else 1
            side = -1
        if abs(high - low) <= _ROOT_TOLERANCE * high:
            break
    return high
