"""The examples run as they are, in virtual time, and say what they promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(name: str, tmp_path: Path, *args: str) -> tuple[str, dict]:
    report = tmp_path / "report.json"
    command = [
        sys.executable, "-m", "agent_runtime.cli.main", "run", f"examples/{name}", "--virtual",
        "--seed", "1", "--quiet", "--json", str(report), "--", *args,
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
