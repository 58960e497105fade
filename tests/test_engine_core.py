"""One engine in time: vLLM's rules, exact times, nothing lost."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_model.engine.engine_core import EngineCore, TokensGenerated
from hw_model.engine.request import RequestId
from hw_model.engine.request_queue import SchedulingPolicy
from hw_model.errors import ConfigError
from tests.engines import chain, engine, request


def run_out(core: EngineCore, arrivals: list[tuple]) -> list[TokensGenerated]:
    """Add ``(at_s, request)`` in order, run to the end, check invariants at every step."""
    generated = []
    for at_s, item in arrivals:
        while core.next_event_s is not None and core.next_event_s < at_s:
            generated += core.advance(core.next_event_s)
            core.check_invariants()
        core.add(item, at_s)
    while core.next_event_s is not None:
        generated += core.advance(core.next_event_s)
        core.check_invariants()
    return generated


def tokens_of(generated: list[TokensGenerated], name: str) -> int:
    return sum(event.num_tokens for event in generated if event.request_id == name)


def last_of(generated: list[TokensGenerated], name: str) -> TokensGenerated:
    return [event for event in generated if event.request_id == name][-1]


def test_a_request_gets_exactly_its_output_and_leaves_no_block_held() -> None:
    core = engine()
    generated = run_out(core, [(1.0, request("a", 10, 7))])
    assert tokens_of(generated, "a") == 7
    assert last_of(generated, "a").finished
    assert core.kv_active_ratio == 0
    assert core.next_event_s is None


def test_a_prompt_over_the_token_budget_is_computed_in_chunks() -> None:
    whole, chunked = engine(max_num_batched_tokens=128), engine(max_num_batched_tokens=32)
    first = run_out(whole, [(0.0, request("a", 100, 1))])
    second = run_out(chunked, [(0.0, request("a", 100, 1))])
    assert len(first) == len(second) == 1
    assert second[0].at_s > first[0].at_s, "four steps' overhead instead of one"


def test_the_next_turn_hits_the_prompt_and_the_output_before_it() -> None:
    core = engine()
    hashes = chain(0, 10)
    run_out(core, [(0.0, request("turn 1", 16, 8, hashes[:6]))])
    generated = run_out(core, [(9.0, request("turn 2", 30, 2, hashes[:8]))])
    # 16 + 8 tokens, of which the last generated one was never computed: 5 full blocks of 4.
    assert last_of(generated, "turn 2").num_cached_tokens == 20


def test_a_prompt_that_is_wholly_cached_still_computes_its_last_block() -> None:
    core = engine()
    run_out(core, [(0.0, request("a", 16, 1, chain(0, 4)))])
    generated = run_out(core, [(1.0, request("b", 16, 1, chain(0, 4)))])
    assert last_of(generated, "b").num_cached_tokens == 12


def test_without_prefix_caching_nothing_is_ever_hit() -> None:
    core = engine(prefix_caching=False)
    run_out(core, [(0.0, request("a", 16, 1, chain(0, 4)))])
    generated = run_out(core, [(1.0, request("b", 16, 1, chain(0, 4)))])
    assert last_of(generated, "b").num_cached_tokens == 0
    assert core.kv_used_ratio == 0


def test_when_kv_runs_out_the_youngest_is_preempted_and_still_finishes() -> None:
    core = engine(num_blocks=8)
    generated = run_out(core, [(0.0, request("old", 12, 12)), (0.0, request("young", 12, 12))])
    stats = core.stats()
    assert stats.num_preemptions >= 1
    assert stats.num_recomputed_tokens >= 12
    assert tokens_of(generated, "old") == tokens_of(generated, "young") == 12
    assert last_of(generated, "old").at_s < last_of(generated, "young").at_s


def test_a_request_that_can_never_fit_is_refused_with_the_limit() -> None:
    core = engine(num_blocks=8, block_size=4)
    with pytest.raises(ConfigError, match=r"needs 33 tokens of KV; a replica holds 32"):
        core.add(request("big", 30, 3), 0.0)


@pytest.mark.parametrize("macro_stepping", [True, False])
def test_abort_frees_the_blocks_of_waiting_and_running_requests(macro_stepping: bool) -> None:
    core = engine(max_num_seqs=1, macro_stepping=macro_stepping)
    core.add(request("running", 10, 100), 0.0)
    core.add(request("waiting", 10, 100), 0.0)
    core.advance(0.1)
    assert (core.num_running, core.num_waiting) == (1, 1)
    assert core.abort(RequestId("waiting"), 0.1)
    assert core.abort(RequestId("running"), 0.1)
    assert not core.abort(RequestId("running"), 0.1)
    assert not core.abort(RequestId("never seen"), 0.1)
    generated = []
    while core.next_event_s is not None:
        generated += core.advance(core.next_event_s)
        core.check_invariants()
    assert generated == []
    assert core.kv_active_ratio == 0


def test_an_abort_lets_whoever_waited_behind_it_in_at_the_next_step() -> None:
    core = engine(num_blocks=12)
    core.add(request("running", 8, 24), 0.0)
    core.advance(0.0)
    core.add(request("too large for now", 40, 2), 0.0)
    core.add(request("small", 4, 1), 0.0)
    generated = core.advance(0.05)
    assert tokens_of(generated, "small") == 0
    core.abort(RequestId("too large for now"), 0.05)
    generated = run_out(core, [])
    assert last_of(generated, "small").at_s < last_of(generated, "running").at_s


def test_the_most_urgent_is_admitted_first_whoever_came_before() -> None:
    core = engine(max_num_seqs=1, policy=SchedulingPolicy.PRIORITY)
    generated = run_out(
        core,
        [
            (0.0, request("running", 8, 4)),
            (0.001, request("later", 8, 1, priority=1)),
            (0.002, request("sooner", 8, 1, priority=-1)),
        ],
    )
    assert [event.request_id for event in generated if event.finished] == [
        "running",
        "sooner",
        "later",
    ]


def test_the_least_urgent_is_preempted_even_if_it_is_the_oldest() -> None:
    core = engine(num_blocks=8, policy=SchedulingPolicy.PRIORITY)
    generated = run_out(
        core,
        [(0.0, request("idle", 12, 12, priority=1)), (0.0, request("urgent", 12, 12, priority=0))],
    )
    assert core.stats().num_preemptions >= 1
    assert last_of(generated, "urgent").at_s < last_of(generated, "idle").at_s
    assert tokens_of(generated, "idle") == tokens_of(generated, "urgent") == 12


def test_a_long_prompt_leaves_room_for_others_unless_it_is_alone() -> None:
    alone = engine(max_num_batched_tokens=64, long_prefill_token_threshold=8)
    free = engine(max_num_batched_tokens=64)
    first = run_out(alone, [(0.0, request("long", 60, 1))])
    assert first == run_out(free, [(0.0, request("long", 60, 1))])
    both = engine(max_num_batched_tokens=64, long_prefill_token_threshold=8)
    generated = run_out(both, [(0.0, request("long", 60, 1)), (0.0, request("short", 8, 1))])
    assert [event.request_id for event in generated] == ["short", "long"]


requests = st.lists(
    st.tuples(
        st.floats(0, 2, allow_subnormal=False),  # seconds after the one before
        st.integers(1, 90),  # prompt
        st.integers(1, 60),  # output
        st.integers(0, 3),  # branch
        st.integers(0, 10),  # blocks of the trunk
        st.integers(-1, 1),  # priority
    ),
    min_size=1,
    max_size=12,
)


configurations = st.fixed_dictionaries(
    {
        "num_blocks": st.integers(40, 80),
        "max_num_seqs": st.integers(1, 6),
        "policy": st.sampled_from(SchedulingPolicy),
        "long_prefill_token_threshold": st.sampled_from([0, 0, 3, 8, 20]),
        "async_scheduling": st.booleans(),
    }
)


def arrivals_of(drawn: list[tuple], *, unique_outputs: bool = False) -> list[tuple]:
    at_s, arrivals = 0.0, []
    for number, (gap_s, prompt, output, branch, shared, priority) in enumerate(drawn):
        at_s += gap_s
        hashes = chain(branch, (prompt + output) // 4, shared)
        if unique_outputs:
            hashes = chain(number, (prompt + output) // 4, min(shared, prompt // 4))
        arrivals.append((at_s, request(f"r{number}", prompt, output, hashes, priority)))
    return arrivals


def timeline(generated: list[TokensGenerated]) -> dict:
    """Per request: tokens in all, and when the first and the last were ready."""
    seen: dict = {}
    for event in generated:
        total, first_s, _ = seen.get(event.request_id, (0, event.at_s, 0.0))
        seen[event.request_id] = (total + event.num_tokens, first_s, event.at_s)
    return seen


@given(requests, configurations)
@settings(deadline=None, max_examples=200)
def test_everyone_finishes_with_all_tokens_in_order_however_tight_the_pool(
    drawn: list[tuple], configuration: dict[str, Any]
) -> None:
    core = engine(**configuration)
    generated = run_out(core, arrivals_of(drawn))
    for number, (_, _, output, *_) in enumerate(drawn):
        assert tokens_of(generated, f"r{number}") == output
        assert sum(e.finished for e in generated if e.request_id == f"r{number}") == 1
    assert [e.at_s for e in generated] == sorted(e.at_s for e in generated)
    assert core.kv_active_ratio == 0


@given(requests, configurations)
@settings(deadline=None, max_examples=200)
def test_macro_stepping_changes_no_token_count_and_no_time(
    drawn: list[tuple], configuration: dict[str, Any]
) -> None:
    # Two requests that generate the same text at once are the one case a run does not follow: which
    # copy of a block is evicted first depends on what happens between its steps.
    macro = engine(**configuration)
    plain = engine(**configuration, macro_stepping=False)
    fast = timeline(run_out(macro, arrivals_of(drawn, unique_outputs=True)))
    slow = timeline(run_out(plain, arrivals_of(drawn, unique_outputs=True)))
    assert fast.keys() == slow.keys()
    for name, (count, first_s, last_s) in fast.items():
        assert count == slow[name][0]
        assert first_s == pytest.approx(slow[name][1], abs=1e-9)
        assert last_s == pytest.approx(slow[name][2], abs=1e-9)
    assert macro.stats().num_preemptions == plain.stats().num_preemptions
    assert macro.stats().num_cached_tokens == plain.stats().num_cached_tokens
    assert macro.stats().num_recomputed_tokens == plain.stats().num_recomputed_tokens


aborts = st.lists(st.tuples(st.integers(0, 11), st.floats(0, 3, allow_subnormal=False)), max_size=4)


@given(requests, aborts, configurations)
@settings(deadline=None, max_examples=100)
def test_macro_stepping_changes_nothing_for_the_others_when_requests_are_aborted(
    drawn: list[tuple], aborted: list[tuple[int, float]], configuration: dict[str, Any]
) -> None:
    seen = []
    for macro_stepping in (True, False):
        core = engine(**configuration, macro_stepping=macro_stepping)
        arrivals = arrivals_of(drawn, unique_outputs=True)
        actions: list[tuple] = [
            (at_s, number, item) for number, (at_s, item) in enumerate(arrivals)
        ]
        for number, after_s in aborted:
            if number < len(arrivals):
                actions.append((arrivals[number][0] + after_s, 100 + number, None))
        generated = []
        for at_s, number, item in sorted(actions, key=lambda action: action[:2]):
            generated += core.advance(at_s)
            if item is None:
                core.abort(RequestId(f"r{number - 100}"), at_s)
            else:
                core.add(item, at_s)
        generated += run_out(core, [])
        gone = {f"r{number}" for number, _ in aborted}
        times = timeline([event for event in generated if event.request_id not in gone])
        seen.append({name: (count, last_s) for name, (count, _, last_s) in times.items()})
        assert core.kv_active_ratio == 0
    assert seen[0].keys() == seen[1].keys()
    for name, (count, last_s) in seen[0].items():
        assert count == seen[1][name][0]
        assert last_s == pytest.approx(seen[1][name][1], abs=1e-9)


@given(requests)
@settings(deadline=None, max_examples=50)
def test_prefix_caching_changes_times_but_never_who_finishes(drawn: list[tuple]) -> None:
    cached = timeline(run_out(engine(), arrivals_of(drawn)))
    uncached = timeline(run_out(engine(prefix_caching=False), arrivals_of(drawn)))
    assert {name: seen[0] for name, seen in cached.items()} == {
        name: seen[0] for name, seen in uncached.items()
    }


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60)),
        min_size=1,
        max_size=6,
    ),
    st.floats(0, 1),
    st.booleans(),
    st.booleans(),
)
def test_an_output_that_is_cut_short_ends_there_or_with_the_step_under_way(
    wanted: list[tuple[float, int, int, int]], cut_after_s: float, streams: bool, is_async: bool
) -> None:
    ends = []
    for macro_stepping in (True, False):
        core = engine(num_blocks=40, macro_stepping=macro_stepping, async_scheduling=is_async)
        requests = [
            (at_s, request(str(number), prompt, output), cut)
            for number, (at_s, prompt, output, cut) in enumerate(sorted(wanted))
        ]
        for _, item, _ in requests:
            item.streams = streams
        events = [(at_s, index, False) for index, (at_s, _, _) in enumerate(requests)]
        events += [(at_s + cut_after_s, index, True) for at_s, index, _ in events]
        generated = []
        generated_before = {}
        for at_s, index, is_cut in sorted(events):
            while core.next_event_s is not None and core.next_event_s <= at_s:
                generated += core.advance(core.next_event_s)
                core.check_invariants()
            _, item, cut = requests[index]
            if is_cut:
                generated_before[item.request_id] = item.num_generated_tokens
                core.end_output(item, cut, at_s)
            else:
                core.add(item, at_s)
        while core.next_event_s is not None:
            generated += core.advance(core.next_event_s)
            core.check_invariants()
        assert core.kv_active_ratio == 0
        for _, item, cut in requests:
            num_tokens = tokens_of(generated, item.request_id)
            assert num_tokens == item.num_generated_tokens == item.num_output_tokens
            longest = max(cut, generated_before[item.request_id] + 3)
            if not macro_stepping:
                assert num_tokens <= longest
            assert last_of(generated, item.request_id).finished
        ends.append(
            {
                item.request_id: (
                    item.num_generated_tokens,
                    round(last_of(generated, item.request_id).at_s, 9),
                )
                for _, item, _ in requests
            }
        )
    assert ends[0] == ends[1]
