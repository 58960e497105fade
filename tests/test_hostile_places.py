"""Every place of every body, and of every reply, with every kind of value in it.

What is drawn at random finds a place and a kind that don't go together late; there are not so many
of them that they couldn't all be tried.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.errors import AgentRuntimeError
from agent_runtime.loose_json import has_more_brackets, shape_problem
from tests.fuzz.targets import TARGETS, feed_bodies, feed_replies
from tests.hostile_requests import SEEDS, places, with_value

KINDS = (
    "null", "true", "0", "-1", "1.5", "1e999", "NaN", "123456789012345678901234567890", '""', '"x"',
    '"\\ud800"', "[]", "{}", "[[]]", '[{"a":[]}]', '{"type":[]}', '{"id":{}}', '[null,1,"x",[],{}]',
    '{"type":"text","text":{}}', '[{"type":{"a":1}}]', '[{"role":[]}]',
)  # fmt: skip
LEVELS = (90, 198, 205, 400, 960, 2000, 9000)
NESTS = (("[", "]"), ('{"a":', "}"), ('[{"type":"tool_result","content":', "}]"))
HOLE = "\u2620"


def spoilt(seed: object) -> list[str]:
    """Return a JSON value with a hole somewhere, in turn in every place."""
    return [
        json.dumps(with_value(seed, place, HOLE), ensure_ascii=False)
        for place in places(seed)
        if place
    ]


@pytest.mark.parametrize("path", [path for path in SEEDS if path.count("/") <= 3])
def test_a_body_may_have_any_kind_of_value_anywhere(path: str) -> None:
    for seed in SEEDS[path]:
        for text in spoilt(seed):
            for kind in KINDS:
                feed_bodies(text.replace(f'"{HOLE}"', kind).encode())


@pytest.mark.parametrize("path", [path for path in SEEDS if path.count("/") <= 3])
def test_a_body_may_be_nested_anywhere_as_deep_as_it_likes(path: str) -> None:
    for seed in SEEDS[path]:
        for text in spoilt(seed):
            for left, right in NESTS:
                for levels in LEVELS:
                    nested = left * levels + "1" + right * levels
                    feed_bodies(text.replace(f'"{HOLE}"', nested).encode())


def replies() -> list[bytes]:
    return [seed for seed in TARGETS["replies"].seeds if seed]


def data_of(seed: bytes) -> list[str]:
    found = [line.removeprefix("data: ") for line in seed.decode().split("\n")]
    return [line for line in found if line.startswith("{")]


@pytest.mark.parametrize("number", range(len(replies())))
@pytest.mark.parametrize("values", [KINDS, tuple("[" * n + "1" + "]" * n for n in LEVELS)])
def test_so_may_a_reply(number: int, values: tuple[str, ...]) -> None:
    seed = replies()[number].decode()
    for data in data_of(replies()[number]):
        for text in spoilt(json.loads(data)):
            for kind in values:
                feed_replies(seed.replace(data, text.replace(f'"{HOLE}"', kind)).encode())


@pytest.mark.parametrize("feed", [target.feed for target in TARGETS.values()])
@pytest.mark.parametrize("value", [*KINDS, *(left * 50_000 for left, _ in NESTS)])
def test_nor_is_a_value_alone_more_than_an_error(feed: Callable[[bytes], None], value: str) -> None:
    with suppress(AgentRuntimeError):
        feed(value.encode())


@pytest.mark.parametrize("levels", [1, 2, 7])
def test_levels_are_counted_without_going_down(levels: int) -> None:
    value: object = {"a": [], "b": 1, "c": "[[[["}
    for _ in range(levels - 1):
        value = {"a": value, "b": [1, 2]} if levels % 2 else [value, {"a": 1}]
    deepest = levels + 1 - 1 + 1
    assert shape_problem(value, deepest, 10) is None
    assert shape_problem(value, deepest - 2, 10) == f"is nested in more than {deepest - 2} levels"
    assert shape_problem("text", 0, 0) is None
    assert shape_problem([[], {}, 1, "a"], 3, 2) is None
    assert shape_problem([[], {}, []], 3, 2) == "has more than 2 objects and lists side by side"


@given(st.text('[]{}x"', max_size=40).map(str.encode), st.integers(0, 12))
def test_brackets_are_looked_for_as_if_they_were_counted(body: bytes, most: int) -> None:
    assert has_more_brackets(body, most) == (body.count(b"[") + body.count(b"{") > most)
