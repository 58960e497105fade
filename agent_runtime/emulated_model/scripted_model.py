"""The model that says what a script tells it, and makes up the rest."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.model_call import Conversation, ModelCall, Tool, ToolMode
from agent_runtime.emulated_model.reply import (
    Reply,
    Speech,
    ToolCall,
    calling_speech,
    cut_reply,
    text_speech,
)
from agent_runtime.emulated_model.reply_script import ReplyScript, Rule, ScriptedCall, filled_in
from agent_runtime.emulated_model.seeded_model import as_json, sampled_arguments
from agent_runtime.emulated_model.tokenised_text import TokenisedText, made_up_text, tokenised
from agent_runtime.errors import InvalidRequestError
from agent_runtime.prompts.chat_prompt import content_text


class ScriptedModel:
    """Says what the first rule that fits says, whatever format or tool was asked for.

    Args:
        script: The rules, in order.
        path: Of the script, for errors.
        otherwise: Answers what no rule fits.
        seed: Of what rules leave open: made-up text and arguments.
    """

    def __init__(
        self, script: ReplyScript, *, path: str, otherwise: EmulatedModel, seed: int = 0
    ) -> None:
        self._rules = script.reply
        self._path = path
        self._otherwise = otherwise
        self._seed = seed

    def reply(self, call: ModelCall) -> Reply:
        """Return all of one choice.

        Raises:
            InvalidRequestError: A rule calls a tool that the request does not offer, or as for
                ``otherwise``.
        """
        scene = _Scene(call.conversation)
        for number, rule in enumerate(self._rules, start=1):
            if scene.fits(rule):
                speech = self._speech(rule, number, call, scene)
                return cut_reply(speech, call.limits, call.stops)
        return self._otherwise.reply(call)

    def _speech(self, rule: Rule, number: int, call: ModelCall, scene: _Scene) -> Speech:
        rng = call.rng(self._seed)
        content = _content(rule, scene, rng, call.limits.cap)
        if not rule.calls:
            return text_speech(tokenised("") if content is None else content)
        calls = tuple(
            ToolCall(
                call.call_id(index),
                scripted.tool,
                self._arguments(scripted, call, scene, rng, f"reply {number}, calls.{index}.tool"),
            )
            for index, scripted in enumerate(rule.calls)
        )
        return calling_speech(calls, content, forced=call.tools.mode is ToolMode.NAMED)

    def _arguments(
        self,
        scripted: ScriptedCall,
        call: ModelCall,
        scene: _Scene,
        rng: np.random.Generator,
        place: str,
    ) -> str:
        offered: dict[str, Tool] = {tool.name: tool for tool in call.tools.tools}
        tool = offered.get(scripted.tool)
        if tool is None:
            names = ", ".join(offered) or "none"
            raise InvalidRequestError(
                f"{self._path}, {place}: the request offers no tool {scripted.tool!r} to call "
                f"(it offers: {names}); let the rule fit fewer requests",
                param="tools",
            )
        if scripted.arguments is None:
            return sampled_arguments(tool, rng, call.max_effort)
        return as_json(filled_in(scripted.arguments, scene.values))


class _Scene:
    """What rules can ask about a conversation."""

    def __init__(self, conversation: Conversation) -> None:
        last = conversation.messages[-1]
        self._role = last["role"]
        self._tool = _tool_answered(conversation) if self._role in {"tool", "function"} else None
        self.values = {
            "session": conversation.session_id,
            "turn": str(conversation.assistant_turn),
            "step": str(conversation.num_tool_steps),
            "last": content_text(last.get("content"), "messages"),
        }

    def fits(self, rule: Rule) -> bool:
        """Say whether every condition of a rule holds."""
        values = self.values
        return (
            (rule.session is None or fnmatchcase(values["session"], rule.session))
            and (rule.role is None or rule.role == self._role)
            and (rule.contains is None or rule.contains in values["last"])
            and (rule.matches is None or rule.matches.search(values["last"]) is not None)
            and (rule.turn is None or str(rule.turn) == values["turn"])
            and (rule.step is None or str(rule.step) == values["step"])
            and (
                rule.tool is None or (self._tool is not None and fnmatchcase(self._tool, rule.tool))
            )
        )


def _content(rule: Rule, scene: _Scene, rng: np.random.Generator, cap: int) -> TokenisedText | None:
    if rule.num_tokens is not None:
        return made_up_text(rng, min(rule.num_tokens, cap + 1))
    if rule.json_value is not None:
        return tokenised(as_json(filled_in(rule.json_value, scene.values)))
    return None if rule.text is None else tokenised(filled_in(rule.text, scene.values))


def _tool_answered(conversation: Conversation) -> str | None:
    """Return the tool whose result the last message is."""
    last = conversation.messages[-1]
    call_id = last.get("tool_call_id")
    for message in reversed(conversation.messages):
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict) and call_id is not None and call.get("id") == call_id:
                function = call.get("function")
                name = function.get("name") if isinstance(function, dict) else None
                return name if isinstance(name, str) else None
    name = last.get("name")
    return name if isinstance(name, str) else None
