"""Keeping, giving up and fetching KV: what vLLM can't, and nothing lost by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_model.engine.engine_core import EngineCore, TokensGenerated
from hw_model.engine.host_tier import HostTier, HostTierSpec
from hw_model.engine.kv_events import BlocksRemoved, BlocksStored, KvEventLog, Medium
from hw_model.engine.request import RequestId
from hw_model.errors import ConfigError
from hw_model.transfer import TransferLink
from tests.engines import chain, engine, request

BLOCK = 4


def run_until_idle(core: EngineCore) -> list[TokensGenerated]:
    generated = []
    while core.next_event_s is not None:
        generated += core.advance(core.next_event_s)
        core.check_invariants()
    return generated


def run_alone(core: EngineCore, name: str, blocks: list[int], at_s: float) -> TokensGenerated:
    """Run a request over whole blocks and one token more; return its last tokens."""
    core.add(request(name, len(blocks) * BLOCK + 1, 2, blocks), at_s)
    return run_until_idle(core)[-1]


def test_what_is_retained_outlives_a_flood_and_what_is_not_does_not() -> None:
    core = engine(num_blocks=20)
    run_alone(core, "kept", chain(0, 6), 0.0)
    run_alone(core, "left", chain(1, 6), 1.0)
    assert core.residency.retain("kept", chain(0, 6), 1.5) == 6
    run_alone(core, "flood", chain(2, 13), 2.0)
    assert run_alone(core, "kept again", chain(0, 6), 3.0).num_cached_tokens == 6 * BLOCK
    assert run_alone(core, "left again", chain(1, 6), 4.0).num_cached_tokens == 0
    assert core.residency.release("kept", 5.0)
    assert not core.residency.release("kept", 5.0)
    run_alone(core, "second flood", chain(3, 19), 6.0)
    assert run_alone(core, "kept no more", chain(0, 6), 7.0).num_cached_tokens == 0


def test_kv_that_nobody_computes_with_is_used_but_not_active_retained_or_not() -> None:
    core = engine(num_blocks=20)
    ended_s = run_alone(core, "a", chain(0, 6), 0.0).at_s
    then = core.stats()
    assert 0 < then.kv_active_block_s <= then.kv_used_block_s
    core.residency.retain("a", chain(0, 6), ended_s + 10)
    run_until_idle(core)
    core.residency.release("a", ended_s + 30)
    core.residency.forget(chain(0, 6), ended_s + 30)
    run_until_idle(core)
    core.settle(ended_s + 100)
    now = core.stats()
    # Six blocks for thirty seconds; given up, they count no longer.
    assert now.kv_used_block_s - then.kv_used_block_s == pytest.approx(6 * 30)
    assert now.kv_active_block_s == then.kv_active_block_s


def test_retained_kv_is_given_up_before_anybody_is_preempted() -> None:
    core = engine(num_blocks=12)
    run_alone(core, "a", chain(0, 5), 0.0)
    core.residency.retain("a", chain(0, 5), 0.5)
    core.add(request("long answer", 4, 40), 1.0)
    assert run_until_idle(core)[-1].finished
    assert core.stats().num_preemptions == 0
    assert core.residency.num_retained_blocks == 0


def test_retained_kv_never_stops_a_request_that_fits_the_replica() -> None:
    core = engine(num_blocks=12)
    run_alone(core, "a", chain(0, 10), 0.0)
    core.residency.retain("a", chain(0, 10), 0.5)
    core.add(request("as long as the replica", 46, 2), 1.0)
    assert run_until_idle(core)[-1].finished


def test_a_prefix_evicted_from_hbm_is_loaded_from_the_host() -> None:
    core = engine(num_blocks=12, host_blocks=100)
    run_alone(core, "a", chain(0, 8), 0.0)
    run_alone(core, "flood", chain(1, 10), 1.0)
    last = run_alone(core, "a again", chain(0, 8), 2.0)
    assert last.num_cached_tokens == 8 * BLOCK
    assert core.residency.num_loaded_blocks > 0


def test_a_load_takes_the_links_time_and_queues_behind_other_loads() -> None:
    seconds = []
    for names in (["a"], ["a", "b"]):
        core = engine(num_blocks=40, host_blocks=100)
        for branch, name in enumerate(["a", "b"]):
            run_alone(core, f"{name} first", chain(branch, 8), float(branch))
        run_alone(core, "flood", chain(7, 38), 3.0)
        for branch, name in enumerate(names):
            core.add(request(name, 33, 1, chain(branch, 8)), 5.0)
        last = run_until_idle(core)[-1]
        assert last.request_id == names[-1]
        seconds.append(last.at_s - 5.0)
    load_s = 1e-4 + 8 * 1000 / 1e6
    assert seconds[1] > seconds[0] + load_s * 0.9
    assert seconds[0] > load_s


def test_who_is_loaded_first_keeps_its_place_in_the_queue() -> None:
    core = engine(num_blocks=30, host_blocks=100, max_num_seqs=1)
    run_alone(core, "first", chain(0, 8), 0.0)
    run_alone(core, "flood", chain(7, 29), 1.0)
    core.add(request("busy", 9, 40, chain(1, 2)), 2.0)
    core.add(request("loaded", 33, 1, chain(0, 8)), 2.001)
    core.add(request("came after", 9, 1, chain(2, 2)), 2.002)
    finished = [event.request_id for event in run_until_idle(core) if event.finished]
    assert finished == ["busy", "loaded", "came after"]


def test_the_host_forgets_what_was_used_least_recently() -> None:
    log = KvEventLog()
    host = HostTier(HostTierSpec(4, 1.0, 1e9), log)
    host.store([1, 2], None, 0.0)
    host.store([3, 4], None, 1.0)
    host.store([1, 2], None, 2.0)  # only touched
    host.store([5, 6], None, 3.0)
    host.settle(4.0)
    assert host.num_found([1, 2], 0, 2, 4.0) == 2
    assert host.num_found([3, 4], 0, 2, 4.0) == 0
    assert host.num_evicted == 2
    assert BlocksRemoved((3, 4), Medium.CPU) in log.take()
    host.check_invariants()


def test_a_copy_is_found_when_it_is_done_and_not_before() -> None:
    host = HostTier(HostTierSpec(10, 100.0, 100.0, 1.0))
    assert host.store([1, 2, 3], None, 0.0) == 4.0
    assert host.num_found([1, 2, 3], 0, 3, 3.9) == 0
    assert host.num_found([1, 2, 3], 0, 3, 4.0) == 3


def test_demoted_kv_leaves_hbm_once_the_host_has_it() -> None:
    core = engine(num_blocks=20, host_blocks=100)
    run_alone(core, "a", chain(0, 8), 0.0)
    before = core.kv_used_ratio
    assert core.residency.demote(chain(0, 8), 2, 1.0) == 6
    run_until_idle(core)
    assert core.kv_used_ratio == pytest.approx(before - 6 / 20)
    assert run_alone(core, "a again", chain(0, 8), 2.0).num_cached_tokens == 8 * BLOCK
    assert core.residency.num_loaded_blocks == 6


def test_kv_in_use_is_not_demoted() -> None:
    core = engine(num_blocks=20)
    core.add(request("a", 33, 40, chain(0, 8)), 0.0)
    core.advance(0.03)
    assert core.residency.demote(chain(0, 8), 0, 0.03) == 0


def test_prefetched_kv_is_there_when_its_turn_comes() -> None:
    core = engine(num_blocks=12, host_blocks=100)
    run_alone(core, "a", chain(0, 8), 0.0)
    run_alone(core, "flood", chain(1, 10), 1.0)
    ready_s = core.residency.prefetch("a", chain(0, 8), 8, 2.0)
    assert ready_s is not None
    assert ready_s > 2.0
    run_until_idle(core)
    core.add(request("a again", 33, 1, chain(0, 8)), 3.0)
    (first,) = run_until_idle(core)
    assert first.num_cached_tokens == 8 * BLOCK
    alone_s = first.at_s - 3.0
    cold = engine(num_blocks=12)
    core_s = run_alone(cold, "cold", chain(0, 8), 0.0).at_s
    assert alone_s < core_s


def test_what_is_pulled_arrives_when_its_sender_says() -> None:
    core = engine(num_blocks=20)
    assert core.residency.pull("a", chain(0, 6), ready_s=1.0, now_s=0.0)
    core.add(request("early", 25, 1, chain(0, 6)), 0.5)
    early = core.advance(0.9)[-1]
    assert early.num_cached_tokens == 0
    run_until_idle(core)
    core.add(request("late", 25, 1, chain(0, 6)), 2.0)
    assert run_until_idle(core)[-1].num_cached_tokens == 6 * BLOCK
    assert core.residency.num_pulled_blocks == 6


def test_a_pull_without_room_changes_nothing() -> None:
    core = engine(num_blocks=8)
    core.add(request("a", 25, 7, chain(0, 6)), 0.0)
    core.advance(0.0)
    assert not core.residency.pull("b", chain(1, 4), 1.0, 0.0)
    core.check_invariants()


def test_nothing_can_be_pulled_where_nothing_is_found_again() -> None:
    core = engine(prefix_caching=False)
    with pytest.raises(ConfigError, match="without prefix caching"):
        core.residency.pull("a", chain(0, 2), 1.0, 0.0)


def test_a_request_that_is_dropped_while_it_loads_is_gone() -> None:
    core = engine(num_blocks=12, host_blocks=100)
    run_alone(core, "a", chain(0, 8), 0.0)
    run_alone(core, "flood", chain(1, 10), 1.0)
    core.add(request("a again", 33, 1, chain(0, 8)), 2.0)
    core.advance(2.0)
    assert core.num_waiting == 1
    assert core.abort(RequestId("a again"), 2.0)
    assert run_until_idle(core) == []
    assert core.num_waiting == 0
    assert core.kv_active_ratio == 0


@pytest.mark.parametrize(("bytes_per_s", "latency_s"), [(0.0, 0.0), (1.0, -1.0)])
def test_a_link_that_can_not_be_is_refused(bytes_per_s: float, latency_s: float) -> None:
    with pytest.raises(ConfigError, match="a link of"):
        TransferLink(bytes_per_s, latency_s)


def test_a_host_tier_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="one block at least"):
        HostTierSpec(0, 1.0, 1.0)


OPERATIONS = st.lists(
    st.tuples(
        st.floats(0.0, 0.02),  # seconds since the last one
        st.sampled_from(
            ["add", "add", "add", "abort", "retain", "release", "demote", "prefetch", "pull"]
        ),
        st.integers(0, 3),  # branch
        st.integers(1, 14),  # blocks
        st.integers(0, 6),  # of them shared, or from which on
        st.integers(1, 20),  # output tokens
    ),
    min_size=1,
    max_size=25,
)


def carry_out(core: EngineCore, operations: list[tuple]) -> list[TokensGenerated]:
    """Do all operations at their times, checking invariants at every event."""
    generated, now_s = [], 0.0
    for number, (wait_s, kind, branch, blocks, part, output) in enumerate(operations):
        now_s += wait_s
        while core.next_event_s is not None and core.next_event_s <= now_s:
            generated += core.advance(core.next_event_s)
            core.check_invariants()
        hashes, key = chain(branch, blocks, shared=min(part, blocks)), f"key {branch}"
        residency = core.residency
        match kind:
            case "add":
                core.add(request(f"r{number}", blocks * BLOCK + 1, output, hashes), now_s)
            case "abort":
                core.abort(RequestId(f"r{number - part}"), now_s)
            case "retain":
                residency.retain(key, hashes, now_s)
            case "release":
                residency.release(key, now_s)
            case "demote":
                residency.demote(hashes, part, now_s)
            case "prefetch":
                residency.prefetch(key, hashes, blocks, now_s)
            case _:
                residency.pull(key, hashes, now_s + 0.01, now_s)
        core.check_invariants()
    return generated + run_until_idle(core)


@given(OPERATIONS, st.sampled_from([0, 6, 200]), st.integers(20, 40), st.booleans())
def test_whatever_is_asked_for_everybody_is_served_and_nothing_leaks(
    operations: list[tuple], host_blocks: int, num_blocks: int, is_async: bool
) -> None:
    core = engine(num_blocks=num_blocks, host_blocks=host_blocks, async_scheduling=is_async)
    generated = carry_out(core, operations)
    aborted = {f"r{n - op[4]}" for n, op in enumerate(operations) if op[1] == "abort"}
    added = {f"r{n}" for n, op in enumerate(operations) if op[1] == "add"}
    finished = {event.request_id for event in generated if event.finished}
    assert added - aborted <= finished <= added
    assert core.num_running == core.num_waiting == 0
    for branch in range(4):
        core.residency.release(f"key {branch}", 1e6)
    run_until_idle(core)
    assert core.kv_active_ratio == 0


@given(OPERATIONS, st.sampled_from([0, 6, 200]), st.integers(20, 40))
def test_macro_stepping_changes_nothing_whatever_is_asked_for(
    operations: list[tuple], host_blocks: int, num_blocks: int
) -> None:
    ends = []
    for macro_stepping in (True, False):
        core = engine(num_blocks=num_blocks, host_blocks=host_blocks, macro_stepping=macro_stepping)
        generated = carry_out(core, operations)
        ends.append({e.request_id: (e.at_s, e.num_cached_tokens) for e in generated if e.finished})
    macro, single = ends
    assert macro.keys() == single.keys()
    for name, (at_s, num_cached) in macro.items():
        assert at_s == pytest.approx(single[name][0], abs=1e-9)
        assert num_cached == single[name][1]


@given(OPERATIONS, st.integers(20, 40))
def test_who_follows_the_events_knows_what_lies_where(
    operations: list[tuple], num_blocks: int
) -> None:
    log = KvEventLog()
    core = engine(num_blocks=num_blocks, host_blocks=30, log=log)
    carry_out(core, operations)
    told: dict[Medium, dict[int, int]] = {medium: {} for medium in Medium}
    for event in log.take():
        assert isinstance(event, BlocksStored | BlocksRemoved)
        change = 1 if isinstance(event, BlocksStored) else -1
        for block_hash in event.hashes:
            counts = told[event.medium]
            counts[block_hash] = counts.get(block_hash, 0) + change
            assert counts[block_hash] >= 0
    for branch in range(4):
        for shared in range(7):
            hashes = chain(branch, 14, shared)
            cached = core._kv.pool.find_prefix(hashes, 14).num_blocks
            known = 0
            while known < 14 and told[Medium.GPU].get(hashes[known], 0) > 0:
                known += 1
            assert cached == known
