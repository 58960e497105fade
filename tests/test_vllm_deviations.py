"""Where the engine is not vLLM's, each with its reason; one that is mended fails here and goes."""

from __future__ import annotations

import pytest

from hw_model.engine.step_scheduler import EngineLimits
from tests.engines import chain, engine, request


@pytest.mark.xfail(
    strict=True,
    reason="a run of decode steps makes what it generated findable at its end, so a request that "
    "generates the very same text at the same time, in a pool that is full, finds it later",
)
def test_macro_stepping_changes_nothing_for_twins_in_a_full_pool() -> None:
    ends = []
    for macro_stepping in (True, False):
        core = engine(num_blocks=9, macro_stepping=macro_stepping)
        core.add(request("one", 6, 19, chain(1, 6)), 0.0)
        core.add(request("other", 7, 19, chain(1, 6)), 0.0)
        events = core.advance(float("inf"))
        ends.append([(e.request_id, pytest.approx(e.at_s)) for e in events if e.finished])
    assert ends[0] == ends[1]


@pytest.mark.xfail(
    strict=True,
    reason="off, because steps back to back are what the uncalibrated step times are checked "
    "against; vLLM turns it on where it can",
)
def test_async_scheduling_is_on_as_in_vllm() -> None:
    assert EngineLimits().async_scheduling
