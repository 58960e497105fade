"""Prompts and sessions of the gateway, without HTTP."""

from array import array

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.emulated_model.tokenised_text import TokenisedText, made_up_text
from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.gateway.session_keys import SessionKeys
from agent_runtime.prompts.chat_prompt import (
    PromptMemory,
    RenderedMessage,
    chain_digests,
    render_chat,
)
from agent_runtime.prompts.tokeniser import tokenise

BLOCK = 4
roles = st.sampled_from(["system", "user", "assistant", "tool"])
messages = st.lists(st.builds(RenderedMessage, roles, st.text(max_size=30)), min_size=1)


def reply_of(num_tokens: int) -> TokenisedText:
    return made_up_text(np.random.default_rng(num_tokens), num_tokens)


@given(st.text())
def test_every_character_is_in_exactly_one_piece(text: str) -> None:
    assert len(tokenise(text)) <= len(text)
    assert bool(tokenise(text)) == bool(text)


def test_english_and_code_take_about_four_characters_a_token() -> None:
    text = __doc__ * 20 + "def f(value: int) -> int:\n    return value + 1\n" * 10
    assert 3.0 < len(text) / len(tokenise(text)) < 5.0


@given(messages, messages, st.integers(1, 40))
def test_the_next_prompt_goes_on_where_the_reply_ended(
    history: list[RenderedMessage], more: list[RenderedMessage], num_tokens: int
) -> None:
    memory = PromptMemory(BLOCK)
    memory.open_prompt(history)
    reply = reply_of(num_tokens)
    first = memory.plan(reply.tokens)
    assert len(first.block_hashes) == (first.num_tokens + num_tokens) // BLOCK
    said = RenderedMessage("assistant", reply.text)
    memory.open_prompt([*history, said, *more])
    second = memory.plan(reply_of(5).tokens)
    assert second.block_hashes[: len(first.block_hashes)] == first.block_hashes


@given(st.lists(messages, min_size=1, max_size=5))
def test_remembering_the_turn_before_never_changes_a_prompt(
    histories: list[list[RenderedMessage]],
) -> None:
    memory = PromptMemory(BLOCK)
    for history in histories:
        fresh = PromptMemory(BLOCK)
        assert memory.open_prompt(history) == fresh.open_prompt(history)
        assert memory.digests(history) == chain_digests(history)
        assert memory.plan(reply_of(9).tokens) == fresh.plan(reply_of(9).tokens)


def test_sessions_with_the_same_tools_and_system_prompt_share_blocks() -> None:
    tools = [{"type": "function", "function": {"name": "read", "description": "x " * 50}}]
    plans = []
    for task in ("one", "two"):
        memory = PromptMemory(BLOCK)
        system = {"role": "system", "content": "You are careful. " * 10}
        memory.open_prompt(render_chat([system, {"role": "user", "content": task}], tools))
        plans.append(memory.plan(array("I")).block_hashes)
    shared = [a == b for a, b in zip(*plans, strict=False)]
    assert sum(shared) > 20
    assert shared == sorted(shared, reverse=True), "a chain differs from one block on"


def directory(**kwargs) -> SessionDirectory:
    return SessionDirectory(BLOCK, **kwargs)


def history(*texts: str) -> list[bytes]:
    return chain_digests([RenderedMessage("user", text) for text in texts])


def test_a_conversation_is_found_by_its_longest_known_history() -> None:
    sessions = directory()
    one = sessions.find(SessionKeys(), history("a"), 0.0)
    sessions.remember(one, SessionKeys(), history("a", "reply")[-1])
    two = sessions.find(SessionKeys(), history("a"), 1.0)
    sessions.remember(two, SessionKeys(), history("a", "other reply")[-1])
    assert two is not one
    assert sessions.find(SessionKeys(), history("a", "reply", "b"), 2.0) is one
    assert sessions.find(SessionKeys(), history("a", "other reply", "b", "c"), 2.0) is two
    assert sessions.find(SessionKeys(), history("x", "reply"), 2.0) not in {one, two}


def test_a_key_wins_over_history_and_a_found_id_never_takes_a_given_one() -> None:
    sessions = directory()
    given = sessions.find(SessionKeys(exact="found-1"), history("a"), 0.0)
    assert sessions.find(SessionKeys(exact="found-1"), history("z"), 0.0) is given
    assert sessions.find(SessionKeys(), history("b"), 0.0).session_id == "found-2"


def test_old_and_excess_sessions_are_forgotten_with_their_digests_but_never_busy_ones() -> None:
    sessions = directory(max_sessions=2, idle_ttl_s=100.0)
    first = sessions.find(SessionKeys(exact="first"), (), 0.0)
    sessions.remember(first, SessionKeys(), b"history of first")
    busy = sessions.find(SessionKeys(exact="busy"), (), 1.0)
    busy.num_active_turns = 1
    sessions.find(SessionKeys(exact="third"), (), 2.0)
    assert sessions.forget_old(3.0) == ["first"]
    assert sessions.find(SessionKeys(), [b"history of first"], 3.0) is not first
    assert sorted(sessions.forget_old(200.0)) == ["found-1", "third"]
    assert len(sessions) == 1
