"""One request to an engine, and when each of its tokens came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from agent_runtime.chat_client import ChatClient
from agent_runtime.errors import BackendError


@dataclass(frozen=True, slots=True)
class TimedReply:
    """A reply by its client's clock.

    Attributes:
        sent_s: When the request went out.
        token_times_s: When each token had come; those that came together have one time.
        num_prompt_tokens: As the engine counts.
        num_cached_tokens: Of them in its prefix cache; None where it doesn't say.
    """

    sent_s: float
    token_times_s: tuple[float, ...]
    num_prompt_tokens: int
    num_cached_tokens: int | None

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.token_times_s[0] - self.sent_s

    @property
    def e2e_s(self) -> float:
        """Time to last token."""
        return self.token_times_s[-1] - self.sent_s

    @property
    def tpot_s(self) -> float:
        """Mean time between tokens, of which there are two or more."""
        return (self.token_times_s[-1] - self.token_times_s[0]) / (len(self.token_times_s) - 1)


async def timed_reply(
    client: ChatClient,
    messages: Sequence[dict[str, Any]],
    num_tokens: int,
    on_token: Callable[[float], None] | None = None,
) -> TimedReply:
    """Ask for exactly so many tokens.

    Args:
        client: Of the engine; knows the model.
        messages: The prompt.
        num_tokens: Of the reply.
        on_token: Called with the time of every token as it comes.

    Raises:
        UpstreamRefusedError: The engine refused.
        BackendError: It failed, broke off, or counts no tokens.
    """
    body = {
        "messages": list(messages),
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    times_s: list[float] = []
    usage: dict[str, Any] = {}
    sent_s = anyio.current_time()
    async with client.stream(body) as chunks:
        async for chunk in chunks:
            if "error" in chunk:
                raise BackendError(f"the engine broke off: {chunk['error']}")
            now_s = anyio.current_time()
            usage = chunk.get("usage") or usage
            for _ in range(_num_tokens_so_far(chunk, len(times_s)) - len(times_s)):
                times_s.append(now_s)
                if on_token is not None:
                    on_token(now_s)
    _check(times_s, usage, num_tokens)
    details = usage.get("prompt_tokens_details") or {}
    return TimedReply(
        sent_s, tuple(times_s), int(usage["prompt_tokens"]), details.get("cached_tokens")
    )


def _num_tokens_so_far(chunk: dict[str, Any], before: int) -> int:
    """As the chunk's usage says; without one, every piece of text is a token."""
    choices = chunk.get("choices") or ()
    usage = chunk.get("usage")
    if usage is not None:
        return int(usage.get("completion_tokens") or 0)
    return before + any(choice.get("delta", {}).get("content") for choice in choices)


def _check(times_s: Sequence[float], usage: dict[str, Any], num_tokens: int) -> None:
    if not times_s or "prompt_tokens" not in usage:
        raise BackendError(
            "the engine's stream has no usage, so tokens can't be counted: it must understand "
            "stream_options.include_usage"
        )
    if len(times_s) < num_tokens:
        raise BackendError(
            f"the engine ended a reply after {len(times_s)} of {num_tokens} tokens; it broke off, "
            "or does not know ignore_eos"
        )
