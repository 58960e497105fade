"""One run of a session: model calls and tools in turn until the model answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent_runtime.errors import OutputError, TurnLimitError
from agent_runtime.sdk.conversation import ToolCall
from agent_runtime.sdk.events import (
    Event,
    RunEnded,
    RunResult,
    RunStarted,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnStarted,
    Usage,
)
from agent_runtime.sdk.journal import StepKind, StepLog
from agent_runtime.sdk.model_calls import Said
from agent_runtime.sdk.replay import Replay
from agent_runtime.sdk.spans import Span
from agent_runtime.sdk.tool_calls import call_tools, told

if TYPE_CHECKING:
    from agent_runtime.sdk.session import Session


def as_it_is(answer: str) -> str:
    """Parse nothing."""
    return answer


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to do.

    Attributes:
        text: The agent is told.
        streams: Whether texts are wanted as they come.
        members: More of its requests.
        parse: Makes the output of the answer; raises ``OutputError``.
        second_tries: How often the model may answer again after an answer that was none.
    """

    text: str
    streams: bool
    members: Mapping[str, Any] = field(default_factory=dict)
    parse: Callable[[str], Any] = as_it_is
    second_tries: int = 0


class Run:
    """See the module.

    Args:
        session: At work, and kept from other runs.
        asked: What it is to do.
    """

    def __init__(self, session: Session, asked: Asked) -> None:
        self._session = session
        self._asked = asked
        self._usage = Usage()
        self._num_turns = 0
        self._second_tries = asked.second_tries

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield what happens; what an earlier life has recorded happens no more."""
        session = self._session
        log = await session.begin_step(StepKind.RUN, self._asked.text, self._asked.members)
        try:
            with session.connection.spans.run(session) as span:
                yield RunStarted(self._asked.text)
                session.conversation.add({"role": "user", "content": self._asked.text})
                async with aclosing(self._turns(log, span)) as events:
                    async for event in events:
                        yield event
        except Exception as error:
            await log.failed(error)
            raise

    async def _turns(self, log: StepLog, span: Span) -> AsyncGenerator[Event, None]:
        session, conversation = self._session, self._session.conversation
        replay = Replay(log.recorded)
        while self._num_turns < session.agent.max_turns:
            self._num_turns += 1
            before = replay.next_said()
            if before is None:
                async with aclosing(self._turn(log, span)) as events:
                    async for event in events:
                        yield event
            else:
                self._count(before[1])
                conversation.add(before[0])
            if calls := conversation.open_calls():
                async with aclosing(self._tools(calls, replay, log, span)) as events:
                    async for event in events:
                        yield event
                continue
            result = await self._answer(replay, log)
            if result is not None:
                replay.check_all_taken(session.session_id)
                if not log.recorded.ended:
                    await log.ended()
                session.keep_conversation()
                conversation.note_unchanged()
                span.ended(result)
                yield RunEnded(result)
                return
        raise TurnLimitError(
            f"agent {session.agent.name} gave no answer in {session.agent.max_turns} model calls; "
            "raise max_turns, or tell it when to stop"
        )

    async def _turn(self, log: StepLog, run: Span) -> AsyncGenerator[Event, None]:
        """Have the model say something more."""
        session = self._session
        session.spending.check()
        with session.connection.spans.turn(session, run) as span:
            yield TurnStarted(self._num_turns)
            said: Said | None = None
            if self._asked.streams:
                async with aclosing(session.stream_turn(self._asked.members)) as parts:
                    async for part in parts:
                        if isinstance(part, TextDelta):
                            yield part
                        else:
                            said = part
            else:
                said = await session.whole_turn(self._asked.members)
            assert said is not None  # noqa: S101 - every stream that doesn't raise ends with it
            span.ended(said.ended)
        self._count(said.ended.usage)
        await log.add(said.message, said.ended.usage)
        session.conversation.add(said.message)
        yield said.ended

    async def _tools(
        self, calls: list[ToolCall], replay: Replay, log: StepLog, run: Span
    ) -> AsyncGenerator[Event, None]:
        """Have what the model wants called; those that were done in an earlier life are not."""
        session = self._session
        messages = {call.call_id: replay.result_of(call.call_id) for call in calls}
        step = f"{session.session_id}/{session.num_steps}.{self._num_turns}"
        to_call = {
            f"{step}.{number}": call
            for number, call in enumerate(calls, 1)
            if messages[call.call_id] is None
        }
        for call in to_call.values():
            yield ToolCalled(*call)
        returned: dict[str, ToolReturned] = {}

        async def done(result: ToolReturned) -> None:
            message = told(result)
            await log.add(message)
            messages[result.call_id], returned[result.call_id] = message, result

        if to_call:
            async with session.spending.in_time():
                await call_tools(session, to_call, run, done)
        for message in messages.values():
            if message is not None:
                session.conversation.add(message)
        for call in to_call.values():
            yield returned[call.call_id]

    async def _answer(self, replay: Replay, log: StepLog) -> RunResult[Any] | None:
        """Return the result; None where the model is to answer again.

        Raises:
            OutputError: The answer is not what it must be.
        """
        session = self._session
        text = session.conversation.last.get("content") or ""
        try:
            output = self._asked.parse(text)
        except OutputError as error:
            if not self._second_tries:
                raise
            self._second_tries -= 1
            again = {"role": "user", "content": f"error: {error}. Answer again."}
            if not replay.next_asked_again():
                await log.add(again)
            session.conversation.add(again)
            return None
        messages = session.conversation.messages
        return RunResult(output, text, self._usage, self._num_turns, messages, session.session_id)

    def _count(self, usage: Usage) -> None:
        self._usage += usage
        self._session.spending.add(usage)
