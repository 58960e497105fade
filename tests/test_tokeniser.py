"""The approximate tokeniser: total, stable and cheap on any text."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.prompts.tokeniser import marker, tokenise

any_text = st.text(st.characters(codec=None)) | st.text(
    st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)
)


@given(any_text)
def test_any_text_has_tokens_of_32_bits_lone_surrogates_included(text: str) -> None:
    tokens = tokenise(text)
    assert bool(tokens) == bool(text)
    assert len(tokens) <= len(text)
    assert all(0 <= token < 1 << 32 for token in tokens)


@given(any_text, any_text)
def test_a_changed_text_has_other_tokens(one: str, other: str) -> None:
    assert (tokenise(one) == tokenise(other)) == (one == other)


def test_ids_are_those_of_every_process_and_machine() -> None:
    assert tokenise(" code").tolist() == [zlib.crc32(b" code")] == [1370634141]


@pytest.mark.parametrize(
    ("text", "num_tokens"),
    [
        ("The parser reads lines", 4),
        ("internationalisation", 3),  # letters by eights
        ("20261123", 3),  # digits by threes
        ("a  b", 3),
        ("if x:\n    return y\n", 8),
        ("\n" * 50, 1),
        ("会话调度", 2),
        ("👩‍💻", 2),
    ],
)
def test_text_is_cut_as_byte_pair_tokenisers_first_cut_it(text: str, num_tokens: int) -> None:
    assert len(tokenise(text)) == num_tokens


def test_markers_are_told_apart_from_the_words_they_are_named_by() -> None:
    roles = ("system", "developer", "user", "assistant", "tool", "function", "tools")
    ids = {marker(role) for role in roles} | {tokenise(role)[0] for role in roles}
    assert len(ids) == 2 * len(roles)
