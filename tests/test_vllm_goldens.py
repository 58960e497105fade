"""The engine does, step by step, what vLLM's own scheduler was recorded doing.

``make goldens`` records them anew; ``make test-vllm`` compares live on scenarios nobody has seen.
"""

import gzip
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vllm.replay import replay
from tests.vllm.scenarios import scenario

HERE = Path(__file__).parent / "vllm"
GOLDENS = [
    json.loads(line)
    for line in gzip.decompress((HERE / "goldens.jsonl.gz").read_bytes()).split(b"\n")
    if line
]
VLLM_PYTHON = os.environ.get("PANJIU_VLLM_PYTHON")


@pytest.mark.parametrize("golden", GOLDENS, ids=[f"seed {golden['seed']}" for golden in GOLDENS])
def test_every_step_is_the_one_vllm_took(golden: dict) -> None:
    steps = replay(scenario(golden["seed"]))
    for number, (ours, theirs) in enumerate(zip(steps, golden["steps"], strict=False)):
        assert ours == theirs, f"step {number}"
    assert len(steps) == len(golden["steps"])


def test_the_goldens_cover_what_they_are_for() -> None:
    given = [scenario(golden["seed"]) for golden in GOLDENS]
    assert len(GOLDENS) >= 100
    assert {case.block_size for case in given} == {4, 16, 64, 128}
    assert {case.prefix_caching for case in given} == {True, False}
    assert {case.max_num_seqs for case in given} >= {1, 2, 4, 16}
    assert sum(bool(case.aborts) for case in given) > 20
    steps = [step for golden in GOLDENS for step in golden["steps"]]
    assert sum(len(step[1]) for step in steps) > 20, "preemptions"
    assert len({golden["vllm"] for golden in GOLDENS}) == 1


@pytest.mark.skipif(VLLM_PYTHON is None, reason="needs a venv with vLLM: make test-vllm")
def test_live_on_scenarios_nobody_has_seen() -> None:
    first = secrets.randbelow(10**9)
    count = 300
    recorded = subprocess.run(
        [str(VLLM_PYTHON), str(HERE / "record.py"), str(first), str(count)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    lines = [line for line in recorded.stdout.split(b"\n") if line.startswith(b'{"seed"')]
    assert len(lines) == count, recorded.stderr.decode()[-2000:]
    for golden in map(json.loads, lines):
        assert replay(scenario(golden["seed"])) == golden["steps"], f"seed {golden['seed']}"
    sys.stdout.write(f"{count} scenarios from seed {first} on: equal\n")
