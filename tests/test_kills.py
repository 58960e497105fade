"""Real processes are killed under load, and nothing is lost; ``make test-kills`` kills more."""

from tests.kills.__main__ import kill_run, terms_of
from tests.kills.run import Terms


def test_nothing_is_lost_whoever_is_killed() -> None:
    told = kill_run(terms_of("words", Terms(6, 6, seed=1)), "words", print)
    assert told.problems == []
    assert told.killed.total() == 6
    assert told.num_turns > 12
    assert told.num_tool_calls > 9
    assert told.ends.total() > told.num_turns, "nobody was struck"
