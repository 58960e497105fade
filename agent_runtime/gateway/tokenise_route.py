"""``POST /tokenize``: how a prompt is cut here, and how long it is.

The tokens are those of the approximate tokeniser: ids of pieces of text, which
``/v1/completions`` takes. They can't be turned back into text, so there is no ``/detokenize``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.gateway.dialects.chat_wire import ChatMessage, ToolParam
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.wire import Wire, one_of_both, parse_body
from agent_runtime.prompts.chat_prompt import PromptMemory, render_chat
from agent_runtime.prompts.tokeniser import cut, marker, tokenise


class TokenizeRequest(Wire):
    """A text, or a conversation."""

    model_config = ConfigDict(json_schema_extra=one_of_both(prompt="string", messages="array"))

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    tools: list[ToolParam] | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt or messages")
        return self


@dataclass(frozen=True, slots=True)
class TokeniseRoute:
    """The route.

    Attributes:
        opening: Reads bodies, and knows what is served.
    """

    opening: Opening

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        asked = parse_body(TokenizeRequest, await self.opening.read(request))
        if asked.model is not None:
            self.opening.models.check(asked.model)
        strings: list[str] | None = None
        if asked.prompt is not None:
            self.opening.check_countable([asked.prompt], "prompt")
            tokens = tokenise(asked.prompt).tolist()
            strings = cut(asked.prompt) if asked.return_token_strs else None
        else:
            tokens = self._chat_tokens(asked)
        body: dict[str, Any] = {
            "count": len(tokens),
            "max_model_len": self.opening.runner.max_context_tokens,
            "tokens": tokens,
            "token_strs": strings,
        }
        return JSONResponse(body)

    def _chat_tokens(self, asked: TokenizeRequest) -> list[int]:
        messages = [message.model_dump() for message in asked.messages or ()]
        tools = [tool.model_dump(exclude_unset=True) for tool in asked.tools or ()]
        memory = PromptMemory(self.opening.runner.block_size_tokens)
        rendered = render_chat(messages, tools)
        self.opening.check_countable([piece.text for piece in rendered], "messages")
        memory.open_prompt(rendered)
        opening = [marker("assistant")] if asked.add_generation_prompt else []
        return [*memory.tokens(), *opening]
