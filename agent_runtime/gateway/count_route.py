"""``POST /v1/messages/count_tokens``: how long a prompt is, without a turn."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.gateway.dialects.messages_reading import read_count
from agent_runtime.gateway.neutral_request import ChatPrompt
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.gateway.tenants import tenant_of
from agent_runtime.prompts.chat_prompt import PromptMemory, render_chat


@dataclass(frozen=True, slots=True)
class CountRoute:
    """The route.

    Attributes:
        opening: Reads bodies, and knows what is served.
    """

    opening: Opening

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        caller = Caller(request.headers, tenant_of(request))
        neutral = read_count(await self.opening.read(request), caller)
        if neutral.model is not None:
            self.opening.models.check(neutral.model)
        (prompt,) = neutral.prompts
        num_tokens = 0
        if isinstance(prompt, ChatPrompt):
            memory = PromptMemory(self.opening.runner.block_size_tokens)
            rendered = render_chat(prompt.messages, prompt.tools)
            self.opening.check_countable([piece.text for piece in rendered], "messages")
            num_tokens = memory.open_prompt(rendered)
        return JSONResponse({"input_tokens": num_tokens})
