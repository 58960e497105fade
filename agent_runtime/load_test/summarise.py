"""From what a run has seen to what it says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import numpy as np

from agent_runtime.load_test.load_log import LoadLog
from agent_runtime.load_test.load_plan import Objectives
from agent_runtime.load_test.load_run import LoadRun
from agent_runtime.load_test.run_timeline import run_timeline
from agent_runtime.load_test.seen_turns import (
    FloatArray,
    SeenTurns,
    gaps_between_chunks,
    gaps_between_tokens,
)
from agent_runtime.load_test.server_probe import KnownServer
from agent_runtime.load_test.summary import (
    ClientState,
    ErrorCount,
    Goodput,
    LoadedSessions,
    LoadInputs,
    LoadSummary,
    Throughput,
    TokenCounts,
    TurnColumns,
    TurnCounts,
    Window,
)
from agent_runtime.load_test.turn_record import SessionEnd, SessionRecord, TurnRecord
from agent_runtime.load_test.warnings import CPU_SHARE, LAG_S, run_warnings
from agent_runtime.measurement.summary import Distribution


def summarise(run: LoadRun, *, interrupted: bool) -> LoadSummary | None:
    """Return what a run has seen, ended or not; None if its load never began."""
    if run.server is None or math.isnan(run.began_s):
        return None
    end_s = run.now_s() if math.isnan(run.ended_s) else run.ended_s
    # A turn may be sent a hair before it is due, and the run end with it.
    end_s = max(end_s, max((turn.due_s for turn in run.log.turns), default=end_s))
    phases = run.plan.phases
    stop_s = min(phases.stop_s, end_s)
    start_s = phases.window_start_s
    # Interrupted before anything counts, all that was seen does.
    window = Window(start_s=start_s if start_s < stop_s else 0.0, end_s=stop_s)
    seen = SeenTurns(run.log.turns, window, end_s)
    due = seen.due
    answered = [turn for turn in due if turn.is_answered]
    failed = sum(turn.error is not None for turn in due)
    # Who was interrupted has not failed anybody.
    judged = [turn for turn in due if turn.is_finished or not interrupted]
    tokens = _tokens(answered)
    client = _client(run, due, window)
    counts = TurnCounts(
        due=len(due),
        answered=len(answered),
        failed=failed,
        unfinished=len(due) - len(answered) - failed,
    )
    sessions = [one for one in run.log.sessions if not one.is_sub_agent and window.holds(one.due_s)]
    summary = LoadSummary(
        version=version("panjiu"),
        inputs=_inputs(run, run.server),
        interrupted=interrupted,
        window=window,
        sessions=_sessions(sessions),
        turns=counts,
        ttft_s=_summed(turn.ttft_s for turn in answered),
        itl_s=Distribution.of(gaps_between_chunks(answered)),
        token_gap_s=Distribution.of(gaps_between_tokens(answered)),
        tpot_s=_summed(turn.tpot_s for turn in answered),
        e2e_s=_summed(turn.e2e_s for turn in answered),
        jct_s=_summed(
            one.ended_s - one.due_s for one in sessions if one.end is SessionEnd.COMPLETED
        ),
        throughput=_throughput(seen),
        goodput=_goodput(judged, sessions, run.plan.objectives, window),
        tokens=tokens,
        errors=_errors(run.log),
        client=client,
        warnings=[],
        notes=[*run.server.notes, *run.plan.workload.report_notes()],
        timeline=run_timeline(seen),
        columns=_columns(due),
    )
    return summary.model_copy(update={"warnings": run_warnings(summary)})


def is_good(turn: TurnRecord, objectives: Objectives) -> bool:
    """Return whether a turn got its reply within the objectives."""
    if not turn.is_answered:
        return False
    if objectives.ttft_s is not None and turn.ttft_s > objectives.ttft_s:
        return False
    return objectives.tpot_s is None or not turn.tpot_s > objectives.tpot_s  # NaN: one token


def _inputs(run: LoadRun, server: KnownServer) -> LoadInputs:
    plan, speech = run.plan, run.plan.speech
    return LoadInputs(
        url=plan.base_url,
        model=server.requests.model,
        workload=plan.workload.name,
        arrival=str(plan.arrivals),
        sessions=plan.num_sessions,
        ramp_s=plan.phases.ramp_s,
        warmup_s=plan.phases.warmup_s,
        duration_s=plan.phases.duration_s,
        drain_s=plan.phases.drain_s,
        gap_scale=plan.gap_scale,
        reply_length=server.requests.form.describe(),
        history=speech.history,
        session_identity=speech.identity,
        after_error=plan.after_error,
        seed=plan.seed,
        salt=plan.salt,
        slo_ttft_s=plan.objectives.ttft_s,
        slo_tpot_s=plan.objectives.tpot_s,
        tokens_per_word=server.tokenisation.tokens_per_word,
        counts_from=server.tokenisation.source,
    )


def _sessions(sessions: Sequence[SessionRecord]) -> LoadedSessions:
    ends = [one.end for one in sessions]
    return LoadedSessions(
        due=len(ends),
        completed=ends.count(SessionEnd.COMPLETED),
        failed=ends.count(SessionEnd.FAILED),
        stopped=ends.count(SessionEnd.STOPPED),
    )


def _throughput(seen: SeenTurns) -> Throughput:
    window = seen.window
    if window.length_s <= 0:
        return Throughput(
            turns_per_s=None,
            output_tokens_per_s=None,
            prompt_tokens_per_s=None,
            streams_mean=None,
            streams_max=0,
        )
    times, counts = seen.token_times()
    inside = (times >= window.start_s) & (times <= window.end_s)
    ended = sum(turn.is_answered and window.holds(turn.ended_s) for turn in seen.every)
    prompts = sum(
        turn.prompt_tokens or turn.wanted_prompt_tokens
        for turn in seen.every
        if window.holds(turn.first_s)
    )
    at_s, streams = seen.in_flight()
    from_s, to_s = np.searchsorted(at_s, (window.start_s, window.end_s))
    return Throughput(
        turns_per_s=ended / window.length_s,
        output_tokens_per_s=float(counts[inside].sum()) / window.length_s,
        prompt_tokens_per_s=prompts / window.length_s,
        streams_mean=seen.mean_in_flight(window.start_s, window.end_s),
        streams_max=int(streams[max(0, from_s - 1) : to_s].max(initial=0)),
    )


def _goodput(
    judged: Sequence[TurnRecord],
    sessions: Sequence[SessionRecord],
    objectives: Objectives,
    window: Window,
) -> Goodput:
    good = [turn for turn in judged if is_good(turn, objectives)]
    spoiled = {turn.session_id for turn in judged if not is_good(turn, objectives)}
    over = [one for one in sessions if one.end is not SessionEnd.STOPPED]
    good_sessions = sum(
        one.end is SessionEnd.COMPLETED and one.session_id not in spoiled for one in over
    )
    return Goodput(
        turns=len(good),
        turns_per_s=len(good) / window.length_s if window.length_s > 0 else None,
        turn_ratio=len(good) / len(judged) if judged else None,
        sessions=good_sessions,
        session_ratio=good_sessions / len(over) if over else None,
    )


def _tokens(answered: Sequence[TurnRecord]) -> TokenCounts:
    told = [(turn.prompt_tokens, turn) for turn in answered if turn.prompt_tokens is not None]
    off = np.array(
        [
            abs(prompt - turn.wanted_prompt_tokens) / turn.wanted_prompt_tokens
            for prompt, turn in told
        ]
    )
    cached = [
        (turn.cached_tokens, prompt) for prompt, turn in told if turn.cached_tokens is not None
    ]
    num_prompt_of_cached = sum(prompt for _, prompt in cached)
    num_cached = sum(count for count, _ in cached) if cached else None
    num_chunks = sum(1 + len(turn.gaps_s) for turn in answered)
    num_output = sum(turn.output_tokens for turn in answered)
    return TokenCounts(
        prompt=sum(prompt for prompt, _ in told) if told else None,
        prompt_wanted=sum(turn.wanted_prompt_tokens for turn in answered),
        prompt_off_mean=float(off.mean()) if off.size else None,
        prompt_off_max=float(off.max()) if off.size else None,
        output=num_output,
        output_wanted=sum(turn.wanted_output_tokens for turn in answered),
        cached=num_cached,
        cached_ratio=None if num_cached is None else num_cached / max(1, num_prompt_of_cached),
        tokens_per_chunk=num_output / num_chunks if num_chunks else None,
    )


def _client(run: LoadRun, due: Sequence[TurnRecord], window: Window) -> ClientState:
    lag = Distribution.of(run.health.lags_s(window.start_s, window.end_s))
    delay = _summed(turn.sent_s - turn.due_s for turn in due)
    cpu_share = run.health.cpu_share(window.start_s, window.end_s)
    return ClientState(
        loop_lag_s=lag,
        send_delay_s=delay,
        cpu_share=cpu_share,
        is_limit=(
            (lag.p99 or 0.0) > LAG_S or (delay.p99 or 0.0) > LAG_S or (cpu_share or 0.0) > CPU_SHARE
        ),
    )


def _errors(log: LoadLog) -> list[ErrorCount]:
    return [
        ErrorCount(kind=one.kind, count=one.count, example=one.example, first_s=one.first_s)
        for one in sorted(log.errors.values(), key=lambda one: -one.count)
    ]


def _columns(due: Sequence[TurnRecord]) -> TurnColumns:
    return TurnColumns(
        session=[turn.session_id for turn in due],
        turn=[turn.turn for turn in due],
        due_s=[turn.due_s for turn in due],
        ttft_s=[_known(turn.ttft_s, turn) for turn in due],
        tpot_s=[_known(turn.tpot_s, turn) for turn in due],
        e2e_s=[_known(turn.e2e_s, turn) for turn in due],
        output_tokens=[turn.output_tokens for turn in due],
        error=[turn.error for turn in due],
    )


def _known(value: float, turn: TurnRecord) -> float | None:
    return value if turn.is_answered and not math.isnan(value) else None


def _summed(values: Iterable[float]) -> Distribution:
    array: FloatArray = np.fromiter(values, dtype=np.float64)
    return Distribution.of(array[~np.isnan(array)])
