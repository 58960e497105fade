"""The engine does, step by step, what vLLM's own scheduler was recorded doing.

``make goldens`` records them anew; ``make test-vllm`` compares live on scenarios nobody has seen.
"""

import gzip
import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.vllm.replay import Replay
from tests.vllm.scenarios import KINDS, scenario

HERE = Path(__file__).parent / "vllm"
GOLDENS = [
    json.loads(line)
    for line in gzip.decompress((HERE / "goldens.jsonl.gz").read_bytes()).split(b"\n")
    if line
]
VLLM_PYTHON = os.environ.get("PANJIU_VLLM_PYTHON")


def golden_evictions(golden: dict) -> int:
    counts: list[int] = [step[4] for step in golden["steps"] if len(step) > 1]
    return counts[-1]


@cache
def replayed(seed: int, kind: str) -> Replay:
    run = Replay(scenario(seed, kind))
    run.run()
    return run


@pytest.mark.parametrize(
    "golden", GOLDENS, ids=[f"{golden['kind']} {golden['seed']}" for golden in GOLDENS]
)
def test_every_step_is_the_one_vllm_took(golden: dict) -> None:
    steps = replayed(golden["seed"], golden["kind"]).steps
    for number, (ours, theirs) in enumerate(zip(steps, golden["steps"], strict=False)):
        assert ours == theirs, f"step {number}"
    assert len(steps) == len(golden["steps"])


@pytest.mark.parametrize(
    "golden", GOLDENS, ids=[f"{golden['kind']} {golden['seed']}" for golden in GOLDENS]
)
def test_the_kv_events_are_those_that_vllm_published(golden: dict) -> None:
    assert replayed(golden["seed"], golden["kind"]).events() == golden["events"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_goldens_cover_what_they_are_for(kind: str) -> None:
    goldens = [golden for golden in GOLDENS if golden["kind"] == kind]
    given = [scenario(golden["seed"], kind) for golden in goldens]
    assert len(goldens) >= 60
    assert {case.block_size for case in given} == {4, 16, 64, 128}
    assert {case.prefix_caching for case in given} == {True, False}
    assert {case.max_num_seqs for case in given} >= {1, 2, 4, 16}
    calls = [step for golden in goldens for step in golden["steps"] if len(step) > 1]
    assert sum(len(preempted) for _, preempted, *_ in calls) > 20
    assert sum(golden_evictions(golden) for golden in goldens) > 100
    assert len({golden["vllm"] for golden in GOLDENS}) == 1


def test_the_goldens_abort_requests_in_every_state() -> None:
    aborted: Counter[str] = Counter()
    for golden in GOLDENS:
        aborted += replayed(golden["seed"], golden["kind"]).aborted
    states = {"waiting", "preempted", "in prefill", "decoding", "about to finish"}
    assert {state for state, times in aborted.items() if times >= 5} == states


def test_the_async_goldens_have_tokens_that_come_after_their_request_was_preempted() -> None:
    runs = [replayed(golden["seed"], "async") for golden in GOLDENS if golden["kind"] == "async"]
    assert sum(run.num_stale for run in runs) > 10


@pytest.mark.skipif(VLLM_PYTHON is None, reason="needs a venv with vLLM: make test-vllm")
def test_live_on_scenarios_nobody_has_seen() -> None:
    first = secrets.randbelow(10**9)
    count = 100
    recorded = subprocess.run(
        [str(VLLM_PYTHON), str(HERE / "record.py"), str(first), str(count)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    lines = [line for line in recorded.stdout.split(b"\n") if line.startswith(b'{"seed"')]
    assert len(lines) == count * len(KINDS), recorded.stderr.decode()[-2000:]
    for golden in map(json.loads, lines):
        seed, kind = golden["seed"], golden["kind"]
        run = Replay(scenario(seed, kind))
        assert run.run() == golden["steps"], f"{kind}, seed {seed}"
        assert run.events() == golden["events"], f"{kind}, seed {seed}"
    sys.stdout.write(f"{len(lines)} scenarios from seed {first} on: equal\n")
