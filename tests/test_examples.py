"""The examples run as they are, in virtual time, and say what they promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(name: str, tmp_path: Path, *args: str, options: Sequence[str] = ()) -> tuple[str, dict]:
    report = tmp_path / "report.json"
    command = [
        sys.executable, "-m", "agent_runtime.cli.main", "run", f"examples/{name}", "--virtual",
        "--seed", "1", "--quiet", "--json", str(report), *options, "--", *args,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(report.read_text())


def test_agents_of_openai_s_client(tmp_path: Path) -> None:
    printed, report = run("openai_tools.py", tmp_path, "--agents", "6")
    found = re.fullmatch(r"6 agents, (\d+) model calls, ([\d.]+) s\n", printed)
    assert found
    assert report["turns"] == int(found[1])
    assert report["sessions"]["completed"] == 6
    assert report["simulated_s"] == pytest.approx(float(found[2]), abs=0.1)
    assert report["prefix_hit_ratio"] > 0.5


def test_agents_of_our_sdk(tmp_path: Path) -> None:
    printed, report = run("sdk_coding_agents.py", tmp_path, "--agents", "5", "--tasks", "1")
    assert re.match(r"5 agents, \d content: [\d,]+ prompt tokens, \d", printed)
    assert report["sessions"] == {"total": 5, "completed": 5, "failed": 0}
    assert report["prefix_hit_ratio"] > 0.6


def test_agents_of_pydantic_ai_keep_their_kv_without_naming_sessions(tmp_path: Path) -> None:
    printed, report = run("pydantic_ai_review.py", tmp_path)
    assert printed.startswith("4 reviews, ")
    assert report["sessions"]["total"] == 6
    assert report["prefix_hit_ratio"] > 0.5


def test_forks_of_a_planner_find_its_trunk_in_the_cache(tmp_path: Path) -> None:
    printed, report = run("sdk_research_team.py", tmp_path, "--questions", "3")
    found = re.match(r"3 questions, 9 drafts: [\d,]+ prompt tokens, ([\d.]+)% found", printed)
    assert found
    assert float(found[1]) > 85
    assert report["sessions"]["failed"] == 0


def test_documents_that_are_read_once_are_answered_about_sooner(tmp_path: Path) -> None:
    size = ("--documents", "4", "--words", "10000")
    printed, forked = run("sdk_map_reduce.py", tmp_path, *size)
    assert printed.startswith("4 documents, 16 answers, a report of ")
    assert forked["ttft_s"]["p50"] < 0.2 * forked["ttft_s"]["p99"], "forks do not read it again"
    printed, _ = run("sdk_map_reduce.py", tmp_path, *size, "--no-forks")
    assert printed.startswith("4 documents, 16 answers, a report of ")


def test_a_debate_is_summed_up_as_it_goes(tmp_path: Path) -> None:
    printed, report = run("sdk_debate.py", tmp_path, "--debates", "2", "--rounds", "5")
    assert printed.startswith("2 debates of 5 rounds: ")
    assert report["sessions"] == {"total": 6, "completed": 6, "failed": 0}
    assert report["turns"] >= 2 * (2 * 5 + 2 + 1)


def test_operators_wait_for_people_or_give_up(tmp_path: Path) -> None:
    printed, _ = run("sdk_human_approval.py", tmp_path, "--agents", "6")
    found = re.match(r"6 operators: (\d+) done, (\d+) given up, \d+ min each", printed)
    assert found
    assert int(found[1]) + int(found[2]) == 6


def test_agents_of_openai_s_sdk_stay_one_session_through_handoffs(tmp_path: Path) -> None:
    printed, report = run("openai_agents_support.py", tmp_path, "--customers", "4")
    calls = re.match(r"4 customers, (\d+) model calls, [\d.]+ s\nanswers: ", printed)
    assert calls
    answers = [int(number) for number in re.findall(r"(\d+) (?:billing|technical|triage)", printed)]
    tokens = re.search(r"([\d,]+) prompt tokens, ([\d.]+)% of them found in KV caches", printed)
    assert tokens
    assert sum(answers) == 4 * 3
    assert report["turns"] == int(calls[1])
    assert report["sessions"] == {"total": 4, "completed": 4, "failed": 0}
    assert report["prefix_hit_ratio"] == pytest.approx(float(tokens[2]) / 100, abs=1e-3)
    assert report["prefix_hit_ratio"] > 0.6


def test_graphs_of_langgraph_run_agents_side_by_side_under_the_planner_s_session(
    tmp_path: Path,
) -> None:
    log = tmp_path / "run.jsonl"
    printed, report = run(
        "langgraph_research.py", tmp_path, "--reports", "2", options=("--event-log", str(log))
    )
    parents = {
        line["session"]: line["parent"]
        for line in map(json.loads, log.read_text().splitlines())
        if "parent" in line
    }
    aspects = ("critics", "history", "numbers")
    assert parents == {f"report-{n}-{aspect}": f"report-{n}" for n in (0, 1) for aspect in aspects}
    assert printed.startswith("2 reports from 6 findings, ")
    found = re.search(r"(\d+) turns of 8 sessions, [\d,]+ prompt tokens, ([\d.]+)% of", printed)
    assert found
    assert report["turns"] == int(found[1])
    assert report["sessions"] == {"total": 8, "completed": 8, "failed": 0}
    assert report["prefix_hit_ratio"] == pytest.approx(float(found[2]) / 100, abs=1e-3)
    assert report["prefix_hit_ratio"] > 0.5
