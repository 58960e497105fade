"""The soak, short, and that it finds what leaks. The long one: ``make soak``."""

from __future__ import annotations

import gc
import os
from dataclasses import replace

import pytest

from scheduler.panjiu.departures import Departures
from tests.soak.census import census
from tests.soak.soak import Soaked, SoakPlan, soak
from tests.soak.soaked_gateway import Levels

pytestmark = pytest.mark.anyio
BEFORE = Levels({"panjiu_tasks": 10.0}, 1e8, {"scheduler.session.Session": 5})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.skipif("PANJIU_SOAK" not in os.environ, reason="make soak")
async def test_nothing_is_left_of_a_thousand_turns() -> None:
    told: list[int] = []
    soaked = await soak(SoakPlan(1_000, death_every_turns=300), told.append)
    assert soaked.problems == []
    assert soaked.leaks() == []
    assert soaked.exit_code == 0
    assert "Traceback" not in soaked.said
    counts = soaked.counts
    assert counts["turns"] >= 1_000
    assert counts["deaths of engines"] >= 8
    for kind in ("/v1/chat/completions streams", "/v1/messages whole", "clients that left"):
        assert counts[kind] > 0
    assert told == sorted(told)


def test_what_is_more_than_before_is_a_leak_but_for_windows() -> None:
    window = "agent_runtime.gateway.relay.kept_responses.KeptResponses._deleted[]"
    same = Soaked(before=BEFORE, after=replace(BEFORE, alive={**BEFORE.alive, window: 9_999}))
    assert same.leaks() == []
    alive = {"scheduler.session.Session": 500, window: 10_001}
    leaky = Soaked(before=BEFORE, after=Levels({"panjiu_tasks": 11.0}, 2e8, alive))
    leaky.resident = [(turns, (200 + 5 * turns) << 20) for turns in range(0, 100, 10)]
    tasks, *rest, memory = leaky.leaks()
    assert tasks == "panjiu_tasks: 10 -> 11"
    assert rest == [f"{window}: 0 -> 10,001", "scheduler.session.Session: 5 -> 500"]
    assert memory.startswith("resident memory: [200, 250, ")


def test_a_census_counts_objects_and_what_ours_hold() -> None:
    frozen = gc.get_freeze_count()
    try:
        before = census()
        kept = [Departures() for _ in range(3)]
        for each in kept:
            each._draining["r"] = ["turn"]  # type: ignore[index, list-item]
        after = census()
    finally:
        if not frozen:
            gc.unfreeze()
    name = f"{Departures.__module__}.{Departures.__qualname__}"
    assert after[name] - before.get(name, 0) == 3
    assert after[f"{name}._draining[]"] - before.get(f"{name}._draining[]", 0) == 3
