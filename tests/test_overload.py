"""Overload with processes and sockets, short: counts and bounds, not seconds."""

from __future__ import annotations

import os

import anyio
import pytest
from rich.progress import Progress

from benchmarks.gateway.overload import AFTER, CALM, OVERLOAD, Overloaded, parser, run
from benchmarks.gateway.overload_load import OK, REFUSED, Seen
from benchmarks.gateway.overload_servers import gateway_before_look_alikes
from benchmarks.gateway.overload_summary import MIB, PhaseSummary, summarise

pytestmark = pytest.mark.skipif("PANJIU_SOAK" not in os.environ, reason="make soak")
SHORT = [
    "--measure-s=10", "--calm-s=4", "--overload-s=12", "--after-s=8", "--speed=8", "--max-wait=2",
    "--come-back=0.5",
]  # fmt: skip
OF_SERVER = 20
"""Tasks and descriptors that it has without any request."""


@pytest.fixture(scope="module")
def overloaded() -> Overloaded:
    result = Overloaded(0.0, [], Seen())
    args = parser().parse_args(SHORT)
    with gateway_before_look_alikes(args.replicas, args.speed, args.max_wait) as url:
        anyio.run(run, url, args, result, Progress(disable=True))
    return result


def phases(overloaded: Overloaded) -> dict[str, PhaseSummary]:
    return {phase.name: summarise(overloaded.seen, phase) for phase in overloaded.phases}


def test_new_sessions_are_turned_away_with_a_time_and_those_under_way_are_not(
    overloaded: Overloaded,
) -> None:
    assert overloaded.seen.problems == []
    assert {one.status for one in overloaded.seen.asked} == {OK, REFUSED}
    assert phases(overloaded)[OVERLOAD].refused > 0
    assert all(one.retry_after_s >= 1 for one in overloaded.seen.asked if one.status == REFUSED)


def test_whoever_comes_back_when_told_is_let_in(overloaded: Overloaded) -> None:
    back = [one for one in overloaded.seen.asked if one.attempt == 1]
    assert back
    assert sum(one.status == OK for one in back) >= 0.8 * len(back)


def test_line_tasks_descriptors_and_memory_are_bounded(overloaded: Overloaded) -> None:
    told = phases(overloaded)
    busy, per_s = told[OVERLOAD], overloaded.capacity_per_s
    assert busy.most_waiting < 20 + 10 * per_s  # of some 25 a second that come
    assert busy.most_resident_bytes < told[CALM].most_resident_bytes + 60 * MIB
    for most in (busy.most_tasks, busy.most_fds):
        assert most < OF_SERVER + 4 * (busy.most_held + 60)
    last = overloaded.seen.levels[-1]
    assert last.waiting_newcomers <= 2 + told[CALM].most_waiting
    assert told[AFTER].let_in > 0
