"""What the emulated model says: lengths, tool calls, stop strings, and KV that stays the same."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.emulated_model.model_call import (
    Conversation,
    FreeText,
    ModelCall,
    Tool,
    ToolMode,
    ToolOffer,
)
from agent_runtime.emulated_model.reply import (
    NO_STOPS,
    PieceKind,
    Reply,
    ReplyReader,
    Speech,
    StopStrings,
    ToolCall,
    calling_speech,
    cut_reply,
    text_speech,
)
from agent_runtime.emulated_model.reply_limits import ReplyLength, ReplyLimits
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_model.token_logprobs import token_logprobs
from agent_runtime.emulated_model.tokenised_text import made_up_text, tokenised
from agent_runtime.emulated_model.tool_use import ToolUse
from agent_runtime.json_sampling.vocabulary import WORDS
from agent_runtime.prompts.chat_prompt import (
    PromptMemory,
    RenderedMessage,
    chain_digests,
    render_chat,
)
from agent_runtime.prompts.tokeniser import tokenise

BLOCK = 4
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Read the file."}]
CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["name", "year"],
}


def limits(**changes) -> ReplyLimits:
    values = {"max_tokens": None, "min_tokens": 0, "ignore_eos": False, "room": 100_000}
    return ReplyLimits(**{**values, **changes})


def tool(name: str, parameters: Any = CITY) -> Tool:
    return Tool(name, parameters, "tools[0].function.parameters")


def ask(
    messages: list[dict[str, Any]] = HELLO,
    *,
    tools: tuple[Tool, ...] = (),
    mode: ToolMode = ToolMode.AUTO,
    parallel: bool = True,
    **changes,
) -> ModelCall:
    fields: dict[str, Any] = {
        "conversation": Conversation("s", messages, chain_digests(render_chat(messages, ()))),
        "tools": ToolOffer(tools, mode, parallel) if tools else ToolOffer(),
        "answer_format": FreeText(),
        "limits": limits(),
    }
    return ModelCall(**{**fields, **changes})


texts = st.text(st.characters(codec="utf-8"), max_size=60)
calls = st.lists(
    st.builds(
        lambda name, arguments: ToolCall(
            f"id-{name}", name, json.dumps(arguments, ensure_ascii=False)
        ),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
        st.dictionaries(st.text(max_size=5), st.text(max_size=12) | st.integers(), max_size=3),
    ),
    max_size=3,
).map(tuple)
speeches = st.builds(
    lambda content, made: (
        calling_speech(made, tokenised(content)) if made else text_speech(tokenised(content))
    ),
    texts,
    calls,
)


def test_every_word_is_one_token_alone_and_joined() -> None:
    pieces = [f" {word}" for word in WORDS]
    assert all(len(tokenise(piece)) == 1 for piece in pieces)
    assert len(tokenise("".join(pieces))) == len(pieces)


@given(st.integers(1, 400), st.integers(0, 2**32))
def test_made_up_text_tokenises_to_its_pieces(num_tokens: int, seed: int) -> None:
    said = made_up_text(np.random.default_rng(seed), num_tokens)
    assert said.num_tokens == num_tokens
    assert said.text == said.text.strip()
    assert said == tokenised(said.text)


def test_a_reply_keeps_its_limits_and_says_which_one_cut_it() -> None:
    def reply(**changes) -> tuple[int, str]:
        made = SeededModel(1).reply(ask(limits=limits(**changes)))
        return made.num_tokens, made.finish_reason

    natural, reason = reply()
    assert reason == "stop"
    assert reply(max_tokens=natural) == (natural, "stop")
    assert reply(max_tokens=natural - 1) == (natural - 1, "length")
    assert reply(room=3) == (3, "length")
    assert reply(min_tokens=5000) == (5000, "stop")
    assert reply(max_tokens=7, ignore_eos=True) == (7, "length")
    assert reply(ignore_eos=True) == (natural, "stop")


def joined(reply: Reply, sizes: list[int]) -> dict[str, Any]:
    """Read a reply in steps of these sizes, and put it together as clients do."""
    reader, left = ReplyReader(reply), reply.num_tokens
    message: dict[str, Any] = {"content": "", "calls": {}}
    steps = [*sizes, reply.num_tokens]
    while left:
        num_new = min(left, steps.pop(0))
        left -= num_new
        for piece in reader.take(num_new):
            if piece.kind is PieceKind.CONTENT:
                message["content"] += piece.text
            elif piece.kind is PieceKind.CALL:
                assert piece.call not in message["calls"], "announced once"
                message["calls"][piece.call] = ""
            else:
                message["calls"][piece.call] += piece.text
    return message


@given(speeches, st.lists(st.integers(1, 5)), st.integers(1, 80), st.integers(0, 80))
def test_however_tokens_are_released_the_pieces_make_the_message(
    speech: Speech, sizes: list[int], max_tokens: int, min_tokens: int
) -> None:
    reply = cut_reply(speech, limits(max_tokens=max_tokens, min_tokens=min_tokens), NO_STOPS)
    message = reply.message()
    made = joined(reply, sizes)
    assert (message["content"] or "") == made["content"]
    told = [call["function"]["arguments"] for call in message.get("tool_calls", [])]
    assert told == list(made["calls"].values())
    assert min(min_tokens, max_tokens) <= reply.num_tokens <= max_tokens
    if reply.num_tokens >= speech.said.num_tokens:
        assert told == [call.arguments for call in speech.calls]
        assert reply.finish_reason == ("tool_calls" if speech.calls else "stop")
    else:
        assert reply.finish_reason == "length"


@given(speeches, st.lists(st.text("abc ", max_size=12)), st.booleans())
def test_the_next_prompt_goes_on_where_a_whole_reply_ended(
    speech: Speech, more: list[str], written_again: bool
) -> None:
    reply = cut_reply(speech, limits(), NO_STOPS)
    memory = PromptMemory(BLOCK)
    history = render_chat(HELLO, ())
    memory.open_prompt(history)
    first = memory.plan(reply.tokens)
    assert len(first.block_hashes) == (first.num_tokens + reply.num_tokens) // BLOCK
    message = reply.message()
    if written_again:  # as clients do that read the arguments and write them again
        for call in message.get("tool_calls", []):
            arguments = json.loads(call["function"]["arguments"])
            call["function"]["arguments"] = json.dumps(arguments, separators=(",", ":"))
    after = [message, *({"role": "user", "content": text} for text in more)]
    memory.open_prompt([*history, *render_chat(after, ())])
    second = memory.plan(tokenised("").tokens)
    if speech.said.text:
        assert second.block_hashes[: len(first.block_hashes)] == first.block_hashes


@given(texts, st.integers(1, 20))
def test_a_text_that_is_cut_keeps_its_tokens_when_it_is_sent_back(
    text: str, max_tokens: int
) -> None:
    reply = cut_reply(text_speech(tokenised(text)), limits(max_tokens=max_tokens), NO_STOPS)
    if text:
        assert tokenise(reply.message()["content"]) == reply.tokens


stops = st.lists(st.text("ab \n", min_size=1, max_size=3), min_size=1, max_size=4)


@given(
    st.text("ab \n", max_size=40),
    stops,
    st.lists(st.integers(1, 3)),
    st.booleans(),
    st.integers(0, 12),
)
def test_a_stop_string_ends_the_text_before_it_however_tokens_cut_it(
    text: str, strings: list[str], sizes: list[int], shown: bool, min_tokens: int
) -> None:
    asked = StopStrings(tuple(strings), shown)
    speech = text_speech(tokenised(text))
    reply = cut_reply(speech, limits(min_tokens=min_tokens), asked)
    content = joined(reply, sizes)["content"]
    assert content == reply.message()["content"]
    assert text.startswith(content)
    if reply.stop_reason is None:
        assert content == text
        watched = cut_reply(speech, limits(), asked)
        assert watched.stop_reason is None or watched.num_tokens <= min_tokens
        return
    assert (reply.finish_reason, reply.stop_reason in strings) == ("stop", True)
    assert reply.num_tokens > min_tokens
    if shown:
        assert content.endswith(reply.stop_reason)
    elif not min_tokens:
        assert not any(string in content for string in strings)
    ended = len(content) + (0 if shown else len(reply.stop_reason))
    assert reply.ends[-1] >= ended, "what completes the stop string was generated"
    assert reply.num_tokens == 1 or reply.ends[-2] < ended, "and nothing after it"


def run_loop(
    model: SeededModel, messages: list[dict[str, Any]], tools: tuple[Tool, ...], **changes
) -> list[dict[str, Any]]:
    """Play an agent program until it gets a text or an output tool is called."""
    said = []
    for _ in range(40):
        message = model.reply(ask(messages, tools=tools, **changes)).message()
        said.append(message)
        made = message.get("tool_calls", [])
        if not made or any(call["function"]["name"].startswith("final") for call in made):
            return said
        messages = [*messages, message]
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in made
        ]
    raise AssertionError("the loop does not end")


def test_tool_loops_take_the_steps_and_calls_that_were_configured_and_end_in_a_text() -> None:
    tools = (tool("read"), tool("write"))
    usual = ToolUse(mean_steps=4.0, max_steps=30, mean_calls=1.5)
    model = SeededModel(3, ReplyLength(20), usual)
    num_steps, num_calls = [], []
    for number in range(200):
        said = run_loop(model, [{"role": "user", "content": f"task {number}"}], tools)
        assert said[-1]["content"]
        num_steps.append(len(said) - 1)
        num_calls += [len(message["tool_calls"]) for message in said[:-1]]
        made = [call for message in said[:-1] for call in message["tool_calls"]]
        ids = [call["id"] for call in made]
        assert len(set(ids)) == len(ids), "unique in the conversation"
        for call in made:
            assert set(json.loads(call["function"]["arguments"])) == {"name", "year"}
    assert 3.2 < np.mean(num_steps) < 4.8
    assert 1.35 < np.mean(num_calls) < 1.65
    assert min(num_steps) == 0


def test_by_default_a_loop_and_its_answer_fit_into_ten_turns() -> None:
    num_turns = [len(run_loop(SeededModel(seed), HELLO, (tool("read"),))) for seed in range(100)]
    assert max(num_turns) == 10
    assert 5.2 < np.mean(num_turns) < 7.2, "published: 8.8 steps, the tail of which is cut"


def test_without_steps_auto_never_calls_and_required_calls_what_ends_the_loop() -> None:
    idle = SeededModel(0, tool_use=ToolUse(mean_steps=0.0))
    tools = (tool("read"), tool("final_result"))
    assert "tool_calls" not in idle.reply(ask(tools=tools[:1])).message()
    message = idle.reply(ask(tools=tools, mode=ToolMode.REQUIRED)).message()
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["final_result"]
    assert "tool_calls" not in idle.reply(ask(tools=tools, mode=ToolMode.NONE)).message()


@pytest.mark.parametrize("seed", range(10))
def test_a_loop_that_only_an_output_tool_ends_ends_whatever_that_is_called(seed: int) -> None:
    tools = tuple(tool(name) for name in ("read", "write", "CityReport"))
    messages: list[dict[str, Any]] = list(HELLO)
    for _ in range(20):
        reply = SeededModel(seed).reply(ask(messages, tools=tools, mode=ToolMode.REQUIRED))
        made = reply.message()["tool_calls"]
        if any(call["function"]["name"] == "CityReport" for call in made):
            break
        messages += [reply.message()]
        messages += [{"role": "tool", "tool_call_id": c["id"], "content": "-"} for c in made]
    else:
        raise AssertionError("the output tool was never called")


def test_one_call_at_a_time_if_the_caller_wants_it_so() -> None:
    busy = SeededModel(0, tool_use=ToolUse(mean_steps=8.0, mean_calls=6.0))
    numbers: dict[bool, set[int]] = {True: set(), False: set()}
    for number in range(30):
        messages = [{"role": "user", "content": f"{number}"}]
        for parallel in (True, False):
            call = ask(messages, tools=(tool("read"),), mode=ToolMode.REQUIRED, parallel=parallel)
            numbers[parallel].add(len(busy.reply(call).message()["tool_calls"]))
    assert numbers[False] == {1}
    assert max(numbers[True]) > 2


def test_a_named_tool_ends_with_stop_as_in_vllm_and_others_with_tool_calls() -> None:
    model = SeededModel()
    named = model.reply(ask(tools=(tool("f"),), mode=ToolMode.NAMED))
    required = model.reply(ask(tools=(tool("f"),), mode=ToolMode.REQUIRED))
    assert (named.finish_reason, required.finish_reason) == ("stop", "tool_calls")
    assert named.message()["content"] is None


def test_a_step_that_calls_tools_is_as_long_as_a_reply_and_never_cut_by_its_words() -> None:
    model = SeededModel(0, ReplyLength(200, 0.01), ToolUse(mean_steps=1e9))
    asked = ask(tools=(tool("read"),))
    assert 190 < model.reply(asked).num_tokens < 210
    short = model.reply(ask(tools=(tool("read"),), limits=limits(max_tokens=120)))
    assert short.finish_reason == "tool_calls"
    assert short.num_tokens <= 120


def test_the_same_call_gets_the_same_reply_and_another_seed_or_choice_another() -> None:
    model = SeededModel(5)
    assert model.reply(ask()).message() == model.reply(ask()).message()
    replies = [model.reply(ask(seed=seed, choice=n)) for seed in (None, 1, -1) for n in (0, 1)]
    assert len({reply.message()["content"] for reply in replies}) == len(replies)


@given(speeches, st.integers(0, 20))
def test_logprobs_are_well_formed(speech: Speech, num_top: int) -> None:
    reply = cut_reply(speech, limits(min_tokens=3), NO_STOPS)
    entries = token_logprobs(reply, 0, reply.num_tokens, num_top)
    assert len(entries) == reply.num_tokens
    text = "".join(one["token"] for one in entries).removesuffix("<|endoftext|>" * 3)
    assert text.startswith(speech.said.text)
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] <= 0
        top = entry["top_logprobs"]
        assert len(top) == num_top
        assert [one["logprob"] for one in top] == sorted(
            (one["logprob"] for one in top), reverse=True
        )
        assert len({one["token"] for one in top}) == num_top
        assert not top or entry["token"] in {one["token"] for one in top}
        assert sum(np.exp(one["logprob"]) for one in top) < 1 + 1e-3


def test_a_call_is_read_as_it_was_written_whatever_clients_make_of_it() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    plain = render_chat([{"role": "assistant", "content": None, "tool_calls": [call]}], ())
    written = RenderedMessage(
        "assistant", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    )
    assert plain == [written]
    parsed = {**call, "id": "2", "function": {"name": "f", "arguments": {"a": 1}}}
    assert render_chat([{"role": "assistant", "tool_calls": [parsed]}], ()) == [written]
    for odd in ("x", {"a": 1}, ["x"], [{"function": "f"}], [{"function": {"name": 3}}]):
        assert render_chat([{"role": "assistant", "tool_calls": odd}], ())[0].text
