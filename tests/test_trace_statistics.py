"""What ``trace describe`` says of a workload, against the plainest way to compute it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.cli.main import main
from agent_runtime.workload.coding_agents import coding_agent_sessions
from agent_runtime.workload.context_growth import context_growth
from agent_runtime.workload.prefix_hits import SeenBlocks, infinite_cache_hit_ratio, turns_of
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from agent_runtime.workload.trace_statistics import agents_of, describe
from scheduler.ids import SessionId

B = 16


def spelt(runs: Sequence[tuple[int, int]]) -> list[int]:
    return [block for first, last in runs for block in range(first, last + 1)]


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Sessions that grow, are compacted, and share the blocks 0 to 3."""
    sessions = []
    for number in range(draw(st.integers(1, 4))):
        turns: list[ScriptedTurn] = []
        isl, own = 0, 1000 * (number + 1)
        for _ in range(draw(st.integers(1, 5))):
            if draw(st.booleans()) or not turns:
                isl += draw(st.integers(1, 6 * B))
            else:
                isl, own = draw(st.integers(1, 5 * B)), own + 100
            osl = draw(st.integers(1, 3 * B))
            num_all = (isl + osl) // B
            shared = min(4, num_all)
            runs = [(0, shared - 1)] if shared else []
            if num_all > shared:
                runs.append((own, own + num_all - shared - 1))
            gap_s = draw(st.sampled_from([0.5, 5.0, 20.0, 400.0, 5000.0]))
            turns.append(ScriptedTurn(isl, osl, gap_s if turns else 0.0, tuple(runs)))
            isl += osl
        sessions.append(SessionScript(SessionId(f"s{number}"), tuple(turns)))
    return Workload("w", B, tuple(sessions))


@given(workloads())
def test_ceilings_are_what_counting_block_by_block_gives(workload: Workload) -> None:
    stats = describe(workload)
    num_prompt = sum(turn.isl_tokens for turn in turns_of(workload.sessions))
    for ceiling in stats.ttl_ceilings:
        ttl_s = float("inf") if ceiling.ttl_s is None else ceiling.ttl_s
        found = idle = 0.0
        for script in workload.sessions:
            for before, after in zip(script.turns, script.turns[1:], strict=False):
                context = before.isl_tokens + before.osl_tokens
                idle += context * min(after.gap_s, ttl_s) / 3600
                if after.gap_s <= ttl_s:
                    old = spelt(before.block_id_runs)[: (context - 1) // B]
                    new = spelt(after.block_id_runs)[: (after.isl_tokens - 1) // B]
                    same = [a == b for a, b in zip(old, new, strict=False)]
                    found += B * [*same, False].index(False)
        assert ceiling.token_hit_ratio == pytest.approx(found / num_prompt)
        assert ceiling.idle_token_hours == pytest.approx(idle)
    ratios = [ceiling.token_hit_ratio for ceiling in stats.ttl_ceilings]
    assert ratios == sorted(ratios)
    assert stats.ttl_ceilings[-1].prefill_amplification == pytest.approx(1)
    assert sum(stats.gap_shares) == pytest.approx(1 if stats.gap_s.max is not None else 0)
    assert stats.turns == sum(1 for _ in turns_of(workload.sessions))


@given(workloads())
def test_a_shared_cache_finds_what_a_set_of_blocks_does(workload: Workload) -> None:
    seen: set[int] = set()
    found = 0
    for turn in turns_of(workload.sessions):
        prompt = spelt(turn.block_id_runs)[: (turn.isl_tokens - 1) // B]
        known = [block in seen for block in prompt]
        found += B * ([*known, False].index(False))
        seen.update(spelt(turn.block_id_runs))
    num_prompt = sum(turn.isl_tokens for turn in turns_of(workload.sessions))
    assert infinite_cache_hit_ratio(workload.sessions, B) == pytest.approx(found / num_prompt)
    assert describe(workload).shared_hit_ratio == pytest.approx(found / num_prompt)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=30))
def test_seen_blocks_are_a_set_of_ids(adds: list[tuple[int, int]]) -> None:
    blocks, plain = SeenBlocks(), set[int]()
    for first, length in adds:
        run = (first, first + length)
        expected = 0
        while first + expected in plain and expected <= length:
            expected += 1
        assert blocks.count_and_add([run], [run]) == expected
        plain.update(range(first, first + length + 1))


def test_growth_goes_as_far_as_ten_sessions_do() -> None:
    sessions = coding_agent_sessions(40, seed=1).sessions
    growth = context_growth(sessions)
    assert growth.num_sessions[0] == 40
    assert growth.num_sessions[-1] >= 10
    tenth_longest = sorted((len(script.turns) for script in sessions), reverse=True)[9]
    assert growth.turn.tolist() == list(range(1, tenth_longest + 1))
    assert (growth.p10_tokens <= growth.p50_tokens).all()
    assert (growth.p50_tokens <= growth.p90_tokens).all()
    points = describe(coding_agent_sessions(40, seed=1)).context_growth
    assert [point.turn for point in points][:4] == [1, 2, 5, 10]
    assert points[0].sessions == 40
    assert points[3].p50_tokens == growth.p50_tokens[9]


def test_sub_agents_are_described_with_their_parents() -> None:
    workload = coding_agent_sessions(30, seed=1)
    stats = describe(workload)
    assert stats.sub_agents == sum(1 for _ in agents_of(workload.sessions)) - 30 > 0
    assert stats.sessions == 30


def test_the_command_describes_a_generator_in_three_ways(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    args = [
        "trace",
        "describe",
        "coding-agents",
        "--limit",
        "12",
        "--json",
        "-",
        "--html",
        str(page),
    ]
    assert main(args) == 0
    printed = capsys.readouterr()
    numbers = json.loads(printed.out)
    assert numbers["sessions"] == 12
    assert [ceiling["ttl_s"] for ceiling in numbers["ttl_ceilings"]][:2] == [5.0, 10.0]
    assert "KV kept for" in printed.err
    assert "published" in printed.err
    html = page.read_text()
    assert html.count("<svg") == 4
    assert "TraceLab" in html


def test_the_list_names_every_generator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "list"]) == 0
    listed = capsys.readouterr().out
    for name in ("coding-agents", "human-approval", "fan-out", "api-agents", "gen-200k", "Weka"):
        assert name in listed


def test_a_source_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "describe", "nowhere.jsonl"]) == 1
    assert "no such file" in capsys.readouterr().err
