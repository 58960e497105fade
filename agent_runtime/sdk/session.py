"""One conversation of an agent: model calls and tools in turn until it answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar, overload

import anyio
from pydantic import BaseModel, ValidationError

from agent_runtime.errors import OutputError, SessionBusyError, TurnLimitError
from agent_runtime.sdk.agent import Agent
from agent_runtime.sdk.events import (
    Event,
    RunEnded,
    RunResult,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnEnded,
    Usage,
)
from agent_runtime.sdk.model_calls import ModelCalls
from agent_runtime.sdk.tools import ToolFailure
from agent_runtime.spoken_message import SpokenMessage

Model = TypeVar("Model", bound=BaseModel)
Message = dict[str, Any]


class Session:
    """A conversation; ``AgentRuntime.session`` opens one.

    Attributes:
        session_id: The server keeps the conversation's KV under it.
        agent: Who talks.
        messages: So far, as they go on the wire.
        usage: Of all model calls so far, those of runs that failed included.

    Invariant: ``messages`` is a conversation that the model can go on with: a run that fails or is
        cancelled leaves it as it was before.
    """

    def __init__(self, session_id: str, agent: Agent, calls: ModelCalls, model: str) -> None:
        self.session_id = session_id
        self.agent = agent
        self.messages: list[Message] = []
        self.usage = Usage()
        self._calls = calls
        self._model = model
        self._is_running = False
        self._num_kept = 0
        if agent.instructions:
            self.messages.append({"role": "system", "content": agent.instructions})

    @overload
    async def run(self, text: str) -> RunResult[str]: ...

    @overload
    async def run(self, text: str, *, output: type[Model]) -> RunResult[Model]: ...

    async def run(
        self, text: str, *, output: type[Model] | None = None
    ) -> RunResult[str] | RunResult[Model]:
        """Tell the agent something and let it work until it answers.

        Args:
            text: What it is told.
            output: A pydantic model that the answer must be.

        Raises:
            ModelCallError: The server refused or failed.
            TurnLimitError: It called tools ``agent.max_turns`` times without an answer.
            OutputError: The answer is not what ``output`` wants.
            SessionBusyError: Another run of the session is under way.
        """
        extra = {} if output is None else {"response_format": _format_of(output)}
        result: RunResult[str] | None = None
        parse = (lambda answer: answer) if output is None else _parser_of(output)
        async with aclosing(self._run(text, extra, self._whole_turn, parse)) as events:
            async for event in events:
                if isinstance(event, RunEnded):
                    result = event.result
        assert result is not None  # noqa: S101 - every run that doesn't raise ends with one
        return result

    @asynccontextmanager
    async def stream(self, text: str) -> AsyncIterator[AsyncIterator[Event]]:
        """Open a run whose events are seen as they happen; the last is ``RunEnded``.

        Leaving the context before that cancels the run.

        Raises:
            ModelCallError, TurnLimitError, SessionBusyError: While iterating, as of ``run``.
        """
        run = self._run(text, {}, self._streamed_turn, lambda answer: answer)
        async with aclosing(run) as events:
            yield events

    async def _run(
        self,
        text: str,
        extra: dict[str, Any],
        take_turn: Callable[[dict[str, Any]], AsyncGenerator[Event | Message, None]],
        parse: Callable[[str], Any],
    ) -> AsyncGenerator[Event, None]:
        """Take turns until one calls no tool."""
        usage = Usage()
        with self._at_work():
            self.messages.append({"role": "user", "content": text})
            for number in range(1, self.agent.max_turns + 1):
                async with aclosing(take_turn(self._request(extra))) as events:
                    async for event in events:
                        if isinstance(event, dict):
                            self.messages.append(event)
                            continue
                        if isinstance(event, TurnEnded):
                            usage += event.usage
                            self.usage += event.usage
                        yield event
                message = self.messages[-1]
                calls = message.get("tool_calls") or []
                if not calls:
                    said = message.get("content") or ""
                    output = parse(said)
                    self._num_kept = len(self.messages)
                    yield RunEnded(RunResult(output, said, usage, number, tuple(self.messages)))
                    return
                for event in [ToolCalled(*_named(call)) for call in calls]:
                    yield event
                for returned in await self._call_tools(calls):
                    self.messages.append(_told(returned))
                    yield returned
        raise TurnLimitError(
            f"agent {self.agent.name} gave no answer in {self.agent.max_turns} model calls; raise "
            "max_turns, or tell it when to stop"
        )

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Keep other runs out; at the end forget the messages beyond ``_num_kept``."""
        if self._is_running:
            raise SessionBusyError(
                f"session {self.session_id} is at work; await its run, or open another session"
            )
        self._is_running, self._num_kept = True, len(self.messages)
        try:
            yield
        finally:
            del self.messages[self._num_kept :]
            self._is_running = False

    def _request(self, extra: dict[str, Any]) -> dict[str, Any]:
        request = {**self.agent.options, "model": self._model, "messages": self.messages, **extra}
        if self.agent.tools:
            request["tools"] = [tool.definition() for tool in self.agent.tools]
        return request

    async def _whole_turn(self, request: dict[str, Any]) -> AsyncGenerator[Event | Message, None]:
        answer = await self._calls.whole(request, self._headers())
        (choice, *_) = answer.get("choices") or [{}]
        told = choice.get("message") or {}
        message = {key: told[key] for key in ("content", "tool_calls") if told.get(key)}
        usage = Usage.of(answer.get("usage"))
        yield TurnEnded(usage, str(choice.get("finish_reason") or ""))
        yield {"role": "assistant", "content": None, **message}

    async def _streamed_turn(
        self, request: dict[str, Any]
    ) -> AsyncGenerator[Event | Message, None]:
        said, usage, reason = SpokenMessage(), Usage(), ""
        async with self._calls.stream(request, self._headers()) as chunks:
            async for chunk in chunks:
                said.hear(chunk)
                usage = Usage.of(chunk["usage"]) if chunk.get("usage") else usage
                for choice in chunk.get("choices") or ():
                    reason = choice.get("finish_reason") or reason
                    text = (choice.get("delta") or {}).get("content")
                    if text:
                        yield TextDelta(text)
        yield TurnEnded(usage, reason)
        yield said.message()

    def _headers(self) -> dict[str, str]:
        return {"x-session-id": self.session_id}

    async def _call_tools(self, calls: list[dict[str, Any]]) -> list[ToolReturned]:
        """Run the calls of one message side by side; return their results in its order."""
        results: dict[int, ToolReturned] = {}

        async def one(index: int, call: dict[str, Any]) -> None:
            results[index] = await self._call_tool(*_named(call))

        async with anyio.create_task_group() as tasks:
            for index, call in enumerate(calls):
                tasks.start_soon(one, index, call)
        return [results[index] for index in range(len(calls))]

    async def _call_tool(self, call_id: str, name: str, arguments: str) -> ToolReturned:
        tool = self.agent.tool_named(name)
        if tool is None:
            names = ", ".join(known.name for known in self.agent.tools) or "none"
            content = f"error: no tool {name!r}; there is: {names}"
            return ToolReturned(call_id, name, content, failed=True)
        try:
            return ToolReturned(call_id, name, await tool.call(arguments), failed=False)
        except ToolFailure as failure:
            return ToolReturned(call_id, name, f"error: {failure}", failed=True)


def _told(returned: ToolReturned) -> Message:
    return {"role": "tool", "tool_call_id": returned.call_id, "content": returned.content}


def _named(call: dict[str, Any]) -> tuple[str, str, str]:
    """Return a call's id, name and arguments, whatever of them the server gave."""
    function = call.get("function") or {}
    return (
        str(call.get("id") or ""),
        str(function.get("name") or ""),
        str(function.get("arguments") or "{}"),
    )


def _format_of(output: type[BaseModel]) -> dict[str, Any]:
    schema = {"name": output.__name__, "schema": output.model_json_schema(), "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def _parser_of(output: type[Model]) -> Callable[[str], Model]:
    def parse(answer: str) -> Model:
        try:
            return output.model_validate_json(answer)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise OutputError(
                f"the answer is no {output.__name__}: {problem}; it begins {answer[:200]!r}"
            ) from error

    return parse
