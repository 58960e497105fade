"""Scripts as messages: prompts of the scripted lengths, sharing the scripted blocks."""

from __future__ import annotations

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.errors import TraceError
from agent_runtime.prompts.chat_prompt import PromptMemory, render_chat
from agent_runtime.workload.coding_agents import coding_agent_sessions
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript
from agent_runtime.workload.spoken_session import SpokenSession
from scheduler.ids import SessionId

BLOCK = 16


def reply_of(num_tokens: int, name: str) -> str:
    letters = "".join(chr(ord("a") + int(digit, 16)) for digit in name.encode().hex())[-8:]
    return " ".join([letters] * num_tokens)


def spoken_hashes(script: SessionScript, block_size: int) -> list[tuple[int, tuple[int, ...]]]:
    """Say a session; return each prompt's length, and the hashes of its full blocks."""
    session = SpokenSession(script, block_size)
    prompts = []
    for index, turn in enumerate(script.turns):
        messages = render_chat(session.ask(turn), ())
        memory = PromptMemory(block_size)
        num_tokens = memory.open_prompt(messages)
        hashes = memory.plan(array("I")).block_hashes
        prompts.append((num_tokens, hashes[: num_tokens // block_size]))
        session.hear(turn, reply_of(turn.osl_tokens, f"{script.session_id}{index}"))
    return prompts


@given(
    st.lists(st.tuples(st.integers(4, 200), st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(0, 20),
)
def test_a_growing_session_is_said_in_prompts_of_its_lengths_that_extend_each_other(
    turns: list[tuple[int, int]], trunk_blocks: int
) -> None:
    script = growing("one", turns, trunk_blocks)
    prompts = spoken_hashes(script, BLOCK)
    assert [num for num, _ in prompts] == [turn.isl_tokens for turn in script.turns]
    for (num, before), (_, after) in pairwise(prompts):
        shared = max(
            0, num // BLOCK - 1
        )  # the last one may end with the token that opens the reply
        assert before[:shared] == after[:shared]


@given(st.integers(1, 20), st.integers(1, 30))
def test_sessions_share_the_trunk_and_nothing_else(trunk_blocks: int, own: int) -> None:
    turns = [(own * BLOCK, 5), (100, 5)]
    one = spoken_hashes(growing("one", turns, trunk_blocks), BLOCK)
    other = spoken_hashes(growing("other", turns, trunk_blocks, first_own=10_000), BLOCK)
    for (_, mine), (_, others) in zip(one, other, strict=True):
        assert mine[:trunk_blocks] == others[:trunk_blocks]
        assert mine[trunk_blocks : trunk_blocks + 1] != others[trunk_blocks : trunk_blocks + 1]


def test_generated_coding_agents_are_said_to_the_token_compactions_included() -> None:
    for script in coding_agent_sessions(4, seed=3).sessions:
        prompts = spoken_hashes(script, 64)
        said = [num for num, _ in prompts]
        assert said == [turn.isl_tokens for turn in script.turns]


def test_a_prompt_that_no_message_fits_is_an_error() -> None:
    script = SessionScript(SessionId("s"), (ScriptedTurn(2, 1, 0.0, ()),))
    with pytest.raises(TraceError, match="too short for a message"):
        SpokenSession(script, BLOCK).ask(script.turns[0])


def growing(
    name: str, turns: list[tuple[int, int]], trunk_blocks: int, first_own: int = 1_000
) -> SessionScript:
    """A session whose turns append (text, reply) tokens to a shared trunk."""
    scripted, isl = [], trunk_blocks * BLOCK + 3
    for text, osl in turns:
        isl += text
        own = (isl + osl) // BLOCK - trunk_blocks
        runs = [(0, trunk_blocks - 1)] if trunk_blocks else []
        if own > 0:
            runs.append((first_own, first_own + own - 1))
        scripted.append(ScriptedTurn(isl, osl, 0.0, tuple(runs)))
        isl += osl + 4
    return SessionScript(SessionId(name), tuple(scripted))
