"""Patterns against Python's own re: what is drawn matches, and what matches is the same."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.json_sampling.pattern_nodes import LengthError, PatternError
from agent_runtime.json_sampling.regular_pattern import parse_pattern

atoms = st.sampled_from(
    ["a", "b", "0", "-", "_", r"\d", r"\w", r"\s", r"\D", r"\.", "[ab]", "[^a]", "[a-c0-9_-]", "é"]
)
quantifiers = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "{0,}", "+?"])
quantified = st.tuples(atoms, quantifiers).map("".join)
sequences = st.lists(quantified, max_size=4).map("".join)
groups = st.recursive(
    sequences,
    lambda inner: st.tuples(
        st.lists(inner, min_size=1, max_size=3).map("|".join), st.sampled_from(["", "*", "{1,2}"])
    ).map(lambda parts: f"({parts[0]}){parts[1]}"),
    max_leaves=4,
)
patterns = st.tuples(
    st.sampled_from(["", "^"]),
    st.lists(groups, min_size=1, max_size=3).map("".join),
    st.sampled_from(["", "$"]),
).map("".join)
texts = st.text("ab0-_ .é", max_size=8)


@given(patterns, st.integers(0, 2**32))
def test_what_is_drawn_matches(pattern: str, seed: int) -> None:
    text = parse_pattern(pattern).sample(np.random.default_rng(seed))
    assert re.search(pattern, text)
    assert re.fullmatch(pattern, text)
    assert parse_pattern(pattern).found_in(text)


@given(patterns, texts)
def test_texts_are_judged_as_re_judges_them(pattern: str, text: str) -> None:
    assert parse_pattern(pattern).found_in(text) == bool(re.search(pattern, text, re.ASCII))


@given(st.integers(0, 40), st.integers(0, 20), st.integers(0, 2**32))
def test_lengths_are_kept(least: int, more: int, seed: int) -> None:
    pattern = parse_pattern("^(a|bb)*[0-9]+$")
    try:
        text = pattern.sample(
            np.random.default_rng(seed), min_length=least, max_length=least + more
        )
    except LengthError:
        assert least + more == 0
    else:
        assert least <= len(text) <= least + more


def test_a_pattern_that_takes_re_for_ever_is_judged_at_once() -> None:
    assert not parse_pattern("^(a+)+$").found_in("a" * 2_000 + "b")


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("a(b", "not closed"),
        ("a)", "not expected"),
        ("*a", "nothing for"),
        ("[a", "too early"),
        ("[^\\d\\D]", "no character"),
        ("[b-a]", "a range"),
        ("a\\", "too early"),
        (r"\bword\b", r"\\b is not supported"),
        (r"(a)\1", r"\\1 is not supported"),
        ("(?!a)", "look-around"),
        ("(?i)a", "flags"),
        ("a^b", "anchor inside"),
        ("(a$)", "anchor inside"),
        ("a{2,1}", "wrong way round"),
        ("a{x}", "brace"),
        ("(" * 60 + ")" * 60, "too many groups"),
        (r"\ud800", "hexadecimal"),
    ],
)
def test_what_is_wrong_or_not_supported_is_said(pattern: str, problem: str) -> None:
    with pytest.raises(PatternError, match=problem):
        parse_pattern(pattern)
