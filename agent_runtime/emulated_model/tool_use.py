"""When tools are called, which, and how many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from agent_runtime.emulated_model.model_call import Conversation, ModelCall, Tool, ToolMode

OUTPUT_TOOLS = ("final_result", "final_result_*")
"""Tools whose call is the answer; these names are pydantic-ai's."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """How many steps with tools a user's message takes, and how many calls a step makes.

    Both are geometric, which is an assumption; the means are TraceLab's (arXiv 2606.30560), where a
    user's message takes 8.8 steps with 1.2 calls each: 8 with tools, then the answer.

    Attributes:
        mean_steps: Steps with tools before the answer, >= 0.
        max_steps: Never more. 9 and an answer are the 10 turns that the OpenAI Agents SDK allows
            by default; the mean is then 5.2.
        mean_calls: Calls a step, >= 1.
        max_calls: Never more.
    """

    mean_steps: float = 8.0
    max_steps: int = 9
    mean_calls: float = 1.2
    max_calls: int = 8

    def num_steps(self, rng: np.random.Generator) -> int:
        """Draw how many steps call tools."""
        return min(int(rng.geometric(1 / (1 + self.mean_steps))) - 1, self.max_steps)

    def num_calls(self, rng: np.random.Generator) -> int:
        """Draw how many calls a step makes."""
        return min(int(rng.geometric(1 / self.mean_calls)), self.max_calls)

    def chosen_tools(self, call: ModelCall, seed: int, rng: np.random.Generator) -> list[Tool]:
        """Return the tools to call now, none for a text.

        How many steps a user's message takes is drawn once, from the conversation up to it, so a
        loop ends. Then comes an output tool if there is one. Where a tool is required and none is
        known to be an output tool, it is one that was not called yet: so loops end that only an
        output tool of unknown name ends.
        """
        offer, conversation = call.tools, call.conversation
        if offer.mode is ToolMode.NONE or not offer.tools:
            return []
        if offer.mode is ToolMode.NAMED:
            return [offer.tools[0]]
        working = [tool for tool in offer.tools if not _gives_the_output(tool)]
        if working and conversation.num_tool_steps < self._steps_planned(conversation, seed):
            num_calls = self.num_calls(rng) if offer.parallel else 1
            return [_one_of(working, rng) for _ in range(num_calls)]
        answering = [tool for tool in offer.tools if _gives_the_output(tool)]
        if not answering and offer.mode is ToolMode.REQUIRED:
            called = _names_called(conversation)
            answering = [tool for tool in working if tool.name not in called] or working
        return [_one_of(answering, rng)] if answering else []

    def _steps_planned(self, conversation: Conversation, seed: int) -> int:
        digest = int.from_bytes(conversation.user_digest[:8])
        return self.num_steps(np.random.default_rng([seed, digest]))


def _gives_the_output(tool: Tool) -> bool:
    return any(fnmatchcase(tool.name, pattern) for pattern in OUTPUT_TOOLS)


def _one_of(tools: Sequence[Tool], rng: np.random.Generator) -> Tool:
    return tools[int(rng.integers(len(tools)))]


def _names_called(conversation: Conversation) -> set[str]:
    names = set()
    for message in conversation.since_user:
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                names.add(function["name"])
    return names
