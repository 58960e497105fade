"""Scripts of replies: which rule fits, what it says, and what is wrong with a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.emulated_model.model_call import ModelCall, ToolMode
from agent_runtime.emulated_model.reply_script import read_reply_script
from agent_runtime.emulated_model.scripted_model import ScriptedModel
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.errors import ConfigError, InvalidRequestError, ScriptError
from tests.test_emulated_model import HELLO, ask, limits, tool

SCRIPT = """
[[reply]]
session = "greeter-*"
text = "Hello $session, this is turn $turn."

[[reply]]
role = "user"
contains = "weather"
text = "Let me look."
calls = [{ tool = "look_up", arguments = { city = "Oslo", days = 3, note = "$last" } }]

[[reply]]
tool = "look_*"
matches = "(?i)rain"
json = { answer = "$last", costs = "5 $$", list = [1, "$step"] }

[[reply]]
turn = 2
num_tokens = 40

[[reply]]
contains = "twice"
calls = [{ tool = "look_up" }, { tool = "note" }]
"""


@pytest.fixture
def model(tmp_path: Path) -> ScriptedModel:
    path = tmp_path / "replies.toml"
    path.write_text(SCRIPT)
    return ScriptedModel(read_reply_script(str(path)), path="replies.toml", otherwise=SeededModel())


def said(model: ScriptedModel, call: ModelCall) -> dict[str, Any]:
    return model.reply(call).message()


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_a_tool_call_is_said_as_scripted_and_its_result_leads_on(model: ScriptedModel) -> None:
    tools = (tool("look_up"), tool("note"))
    messages = user("How is the weather?")
    asked = said(model, ask(messages, tools=tools))
    assert asked["content"] == "Let me look."
    (call,) = asked["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {
        "city": "Oslo", "days": 3, "note": "How is the weather?",
    }  # fmt: skip
    messages += [asked, {"role": "tool", "tool_call_id": call["id"], "content": "Rain again"}]
    reply = model.reply(ask(messages, tools=tools))
    assert json.loads(reply.message()["content"]) == {
        "answer": "Rain again", "costs": "5 $", "list": [1, "1"],
    }  # fmt: skip
    assert reply.finish_reason == "stop"


def test_the_first_rule_that_fits_is_taken_and_the_seed_answers_what_none_fits(
    model: ScriptedModel,
) -> None:
    greeted = ask(user("the weather?"))
    conversation = type(greeted.conversation)("greeter-7", HELLO, greeted.conversation.digests)
    assert said(model, ask(conversation=conversation))["content"] == (
        "Hello greeter-7, this is turn 1."
    )
    assert said(model, ask(user("else"))) == SeededModel().reply(ask(user("else"))).message()
    later = [*user("a"), {"role": "assistant", "content": "b"}, *user("c")]
    assert model.reply(ask(later)).num_tokens == 40


def test_limits_cut_what_is_scripted(model: ScriptedModel) -> None:
    later = [*user("a"), {"role": "assistant", "content": "b"}, *user("c")]
    reply = model.reply(ask(later, limits=limits(max_tokens=5)))
    assert (reply.num_tokens, reply.finish_reason) == (5, "length")


def test_arguments_that_are_not_scripted_fit_the_tools_schema(model: ScriptedModel) -> None:
    tools = (tool("look_up"), tool("note", {"type": "object", "properties": {}}))
    calls = said(model, ask(user("twice"), tools=tools, mode=ToolMode.REQUIRED))["tool_calls"]
    assert set(json.loads(calls[0]["function"]["arguments"])) == {"name", "year"}
    assert json.loads(calls[1]["function"]["arguments"]) == {}
    assert calls[0]["id"] != calls[1]["id"]


def test_a_tool_that_is_not_offered_is_the_requests_error_and_names_the_rule(
    model: ScriptedModel,
) -> None:
    with pytest.raises(InvalidRequestError, match=r"replies.toml, reply 5, calls.1.tool: .*'note'"):
        said(model, ask(user("twice"), tools=(tool("look_up"),)))
    with pytest.raises(InvalidRequestError, match="it offers: none"):
        said(model, ask(user("twice")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[reply]\n", "not TOML"),
        ("", "reply: Field required"),
        ("replies = []", "reply: Field required"),
        ("[[reply]]\ntext = 'a'\n[[reply]]\ntxt = 'b'", "reply 2: txt: Extra inputs"),
        ("[[reply]]\nturn = 1", "reply 1: says nothing"),
        ("[[reply]]\ntext = 'a'\nnum_tokens = 3", "reply 1: give one of"),
        ("[[reply]]\nturn = 0\ntext = 'a'", "reply 1: turn: .*greater than or equal to 1"),
        ("[[reply]]\nturn = '1'\ntext = 'a'", "reply 1: turn: .*valid integer"),
        ("[[reply]]\nmatches = '('\ntext = 'a'", "reply 1: matches: not a regular expression"),
        ("[[reply]]\nrole = 'boss'\ntext = 'a'", "reply 1: role"),
        ("[[reply]]\ntext = 'costs $5'", r"reply 1: text: write a dollar sign as \$\$"),
        ("[[reply]]\ntext = '$name'", r"reply 1: text: there is no \$name; there are \$session"),
        ("[[reply]]\ncalls = [{ arguments = {} }]", "reply 1: calls.0.tool: Field required"),
        (
            "[[reply]]\ncalls = [{ tool = 'a', arguments = { at = 2026-01-01 } }]",
            "reply 1: calls.0.arguments: at: JSON has no date",
        ),
        ("[[reply]]\njson = { a = [nan] }", "reply 1: json: a: JSON has no nan"),
        ("[[reply]]\njson = { a = 1 }\ncalls = [{ tool = 'a' }]", "don't go together"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_rule_and_field(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ScriptError, match=message) as error:
        read_reply_script(str(path))
    assert str(error.value).startswith(str(path))


def test_the_script_in_the_docs_is_one(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "emulated_model.md").read_text()
    path = tmp_path / "docs.toml"
    path.write_text(docs.split("```toml\n")[1].split("```")[0])
    script = read_reply_script(str(path))
    assert len(script.reply) == 4
    model = ScriptedModel(script, path="docs.toml", otherwise=SeededModel())
    asked = said(model, ask(user("What weather!"), tools=(tool("look_up"),)))
    assert json.loads(asked["tool_calls"][0]["function"]["arguments"])["question"] == (
        "What weather!"
    )


def test_a_file_that_is_not_there_or_not_text_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        read_reply_script(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not TOML"):
        read_reply_script(str(tmp_path / "binary.toml"))
