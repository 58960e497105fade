"""Real clients of every dialect, over the app in process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import openai
from starlette.applications import Starlette

from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_model.tool_use import ToolUse
from agent_runtime.gateway.app import create_app
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from tests.fake_runner import FakeRunner
from tests.served_rack import MODEL

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"query": {"type": "string", "minLength": 3}, "limit": {"type": "integer"}},
    "required": ["query"],
    "additionalProperties": False,
}


def busy(num_steps: int) -> SeededModel:
    """Return a model whose tool loops nearly always take so many steps."""
    return SeededModel(tool_use=ToolUse(mean_steps=1e6, max_steps=num_steps, mean_calls=1.5))


def app_of(runner: FakeRunner | None = None, model: SeededModel | None = None) -> Starlette:
    return create_app(runner or FakeRunner(), model=MODEL, speaker=model)


@asynccontextmanager
async def openai_of(app: Starlette, **kwargs) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx2.AsyncClient(transport=StreamingAsgiTransport(app), timeout=None) as http:
        yield openai.AsyncOpenAI(
            api_key=kwargs.pop("api_key", "-"),
            base_url="http://rack/v1",
            http_client=http,
            max_retries=0,
            **kwargs,
        )


@asynccontextmanager
async def anthropic_of(app: Starlette, **kwargs) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with httpx2.AsyncClient(transport=StreamingAsgiTransport(app), timeout=None) as http:
        yield anthropic.AsyncAnthropic(
            api_key=kwargs.pop("api_key", "-"),
            base_url="http://rack",
            http_client=http,
            max_retries=0,
            **kwargs,
        )
