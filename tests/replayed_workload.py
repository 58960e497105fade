"""A workload lived through openai's client: a task a session, its turns said as chat messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import openai

from agent_runtime.workload.session_script import SessionScript, Workload
from agent_runtime.workload.spoken_session import SpokenSession


class Replay:
    """Sends a workload's turns, each its gap after the one before.

    Args:
        client: Of the endpoint.
        workload: Who speaks.
        starts_s: When each top-level session starts, emulated seconds from now.
        speed: Emulated seconds per second.
        streaming: Whether to stream answers.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        workload: Workload,
        starts_s: Sequence[float],
        *,
        speed: float = 1.0,
        streaming: bool = False,
    ) -> None:
        self._client = client
        self._workload = workload
        self._starts_s = starts_s
        self._speed = speed
        self._streaming = streaming
        self.num_cached_tokens: dict[tuple[str, int], int] = {}

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            for script, start_s in zip(self._workload.sessions, self._starts_s, strict=True):
                tasks.start_soon(self._live, script, start_s)

    async def _live(self, script: SessionScript, start_s: float) -> None:
        await anyio.sleep(start_s / self._speed)
        session = SpokenSession(script, self._workload.block_size_tokens)
        for index, turn in enumerate(script.turns):
            if index:
                await anyio.sleep(turn.gap_s / self._speed)
            reply, cached = await self._ask(script.session_id, session.ask(turn), turn.osl_tokens)
            self.num_cached_tokens[script.session_id, index] = cached
            session.hear(turn, reply)
            async with anyio.create_task_group() as children:
                for child in turn.children:
                    children.start_soon(self._live, child, child.start_delay_s)
        await self._client.delete(f"/sessions/{script.session_id}", cast_to=object)

    async def _ask(self, name: str, messages: list, num_tokens: int) -> tuple[str, int]:
        request: dict[str, Any] = {
            "model": "any",
            "messages": messages,
            "max_tokens": num_tokens,
            "extra_body": {"ignore_eos": True, "session_id": name},
        }
        if not self._streaming:
            answer = await self._client.chat.completions.create(**request)
            return answer.choices[0].message.content, cached_tokens(answer.usage)
        text, cached = "", 0
        stream = await self._client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            else:
                cached = cached_tokens(chunk.usage)
        return text, cached


def cached_tokens(usage: Any) -> int:
    return int(usage.prompt_tokens_details.cached_tokens)
