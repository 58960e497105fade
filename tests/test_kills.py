"""Real processes are killed under load, and nothing is lost; ``make test-kills`` kills more."""

import pytest

from tests.kills.__main__ import kill_run, terms_of
from tests.kills.run import Terms
from tests.redis_server import needs_redis


@pytest.mark.parametrize(
    ("engines", "num_gateways"),
    [("words", 1), pytest.param("words", 2, marks=needs_redis)],
)
def test_nothing_is_lost_whoever_is_killed(engines: str, num_gateways: int) -> None:
    told = kill_run(terms_of(engines, Terms(6, 6, num_gateways, seed=1)), engines, print)
    assert told.problems == []
    assert told.killed.total() == 6
    assert told.num_turns > 12
    assert told.num_tool_calls > 9
    assert told.ends.total() > told.num_turns, "nobody was struck"
