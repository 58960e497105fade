"""Async scheduling in time: the same steps back to back, each planned one step ahead."""

from dataclasses import replace

import pytest

from hw_model.engine.engine_core import EngineCore, TokensGenerated
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import RequestId
from hw_model.step_time import StepShape
from tests.engines import engine, request
from tests.vllm.replay import Replay, engine_request, limits_of
from tests.vllm.scenarios import KINDS, scenario


class UnitSteps:
    """Every step takes a second; remembers their shapes."""

    def __init__(self) -> None:
        self.shapes: list[StepShape] = []

    def step_s(self, shape: StepShape) -> float:
        self.shapes.append(shape)
        return 1.0

    def decode_line(self, num_sequences: int) -> tuple[float, float]:
        del num_sequences
        return 1.0, 0.0


def unit_engine(*, async_scheduling: bool, macro_stepping: bool = True) -> EngineCore:
    core = engine(async_scheduling=async_scheduling, macro_stepping=macro_stepping)
    core._step_time = UnitSteps()
    return core


def finish(core: EngineCore) -> list[TokensGenerated]:
    generated = []
    while core.next_event_s is not None:
        generated += core.advance(core.next_event_s)
        core.check_invariants()
    return generated


def ends(generated: list[TokensGenerated]) -> dict[str, float]:
    return {event.request_id: event.at_s for event in generated if event.finished}


def test_alone_a_request_takes_no_step_more_and_no_time_more() -> None:
    both = []
    for async_scheduling in (False, True):
        core = unit_engine(async_scheduling=async_scheduling)
        core.add(request("a", 70, 9), 0.0)
        both.append((ends(finish(core)), core.stats().busy_s))
    assert both[0] == both[1] == ({"a": 3 + 8}, 3 + 8)


@pytest.mark.parametrize("macro_stepping", [True, False])
def test_who_arrives_during_a_step_is_computed_one_step_later(macro_stepping: bool) -> None:
    firsts = []
    for async_scheduling in (False, True):
        core = unit_engine(async_scheduling=async_scheduling, macro_stepping=macro_stepping)
        core.add(request("running", 8, 30), 0.0)
        core.advance(5.5)
        core.add(request("new", 8, 1), 5.5)
        firsts.append(ends(finish(core))["new"])
    assert firsts == [7.0, 8.0], "the step after the one under way was planned already"


@pytest.mark.parametrize("macro_stepping", [True, False])
def test_the_slot_of_a_finished_request_is_taken_one_step_later(macro_stepping: bool) -> None:
    waits = []
    for async_scheduling in (False, True):
        core = engine(
            max_num_seqs=2, async_scheduling=async_scheduling, macro_stepping=macro_stepping
        )
        core._step_time = UnitSteps()
        for name, output in (("short", 5), ("long", 20), ("next", 1)):
            core.add(request(name, 4, output), 0.0)
        waits.append(ends(finish(core)))
    assert [wait["short"] for wait in waits] == [5.0, 5.0]
    assert [wait["next"] for wait in waits] == [6.0, 7.0]


@pytest.mark.parametrize("macro_stepping", [True, False])
def test_an_aborted_request_is_still_computed_by_the_step_planned_ahead(
    macro_stepping: bool,
) -> None:
    core = unit_engine(async_scheduling=True, macro_stepping=macro_stepping)
    core.add(request("a", 8, 30), 0.0)
    core.advance(5.5)
    assert core.abort(RequestId("a"), 5.5)
    assert finish(core) == []
    assert core.kv_active_ratio == 0
    assert core.stats().busy_s == 7.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_the_engine_in_time_takes_the_steps_that_were_compared_with_vllm(
    seed: int, kind: str
) -> None:
    given = scenario(seed, kind)
    clock = UnitSteps()
    core = EngineCore(
        KvManager(
            given.num_blocks - 1, given.block_size, enable_prefix_caching=given.prefix_caching
        ),
        limits_of(given),
        clock,
        macro_stepping=False,
    )
    together = [replace(item, at_step=0) for item in given.requests]
    for item in together:
        core.add(engine_request(item, given.block_size), 0.0)
    finish(core)
    run = Replay(replace(given, requests=tuple(together), aborts=()))
    run.run()
    assert clock.shapes == run.shapes
