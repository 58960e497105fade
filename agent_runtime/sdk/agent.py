"""Who an agent is: what it is told to be, and what it can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.chat_client import encoded_json
from agent_runtime.errors import ConfigError
from agent_runtime.sdk.tools import AnyTool

OWN_MEMBERS = frozenset({"messages", "model", "stream", "stream_options", "tools"})


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent; sessions are its conversations.

    Attributes:
        name: For people, and the beginning of its sessions' ids.
        instructions: The system prompt.
        tools: What it may call.
        model: Which model it is, or None for the connection's.
        max_turns: Model calls in a run before it counts as lost.
        options: More fields of its requests, e.g. ``{"temperature": 0}``.

    Raises:
        ConfigError: Two tools of one name, no turn, or options that a request can't have.
    """

    name: str
    instructions: str = ""
    tools: Sequence[AnyTool] = ()
    model: str | None = None
    max_turns: int = 100
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ConfigError(f"agent {self.name}: two tools have one name: {', '.join(names)}")
        if self.max_turns < 1:
            raise ConfigError(f"agent {self.name}: max_turns must be at least 1")
        for own in OWN_MEMBERS & self.options.keys():
            raise ConfigError(f"agent {self.name}: options can't have {own!r}, which the SDK sets")
        try:
            encoded_json(dict(self.options))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"agent {self.name}: options are not JSON: {error}") from error

    def tool_named(self, name: str) -> AnyTool | None:
        """Return the tool of that name, or None."""
        return next((tool for tool in self.tools if tool.name == name), None)
