"""Plays one session: calls over one growing conversation, gaps and sub-agents between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import anyio

from agent_runtime.load_test.call_errors import CallFailedError
from agent_runtime.load_test.conversation import Conversation
from agent_runtime.load_test.load_log import LoadLog
from agent_runtime.load_test.model_caller import ModelCaller
from agent_runtime.load_test.request_form import RequestMaker
from agent_runtime.load_test.tokenisation import Tokenisation
from agent_runtime.load_test.turn_record import SessionEnd, SessionRecord, TurnRecord
from agent_runtime.load_test.word_stream import SpokenName, WordStream
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript

SHORTEST_SLEEP_S, EARLY_S = 1e-4, 1e-6
"""A loop's clock may be coarser than ours and wake us early; so early is no matter."""


class AfterError(StrEnum):
    """What a session does when a turn of it failed."""

    END = "end"
    GO_ON = "go-on"


class History(StrEnum):
    """What a session's next prompt has for a reply."""

    REPLIES = "replies"
    FILLER = "filler"


@dataclass(frozen=True, slots=True)
class Stage:
    """What all sessions of a run have in common.

    Attributes:
        caller: Calls the server.
        requests: Makes requests.
        words: What prompts say.
        tokenisation: How the server counts them.
        block_size_tokens: Of the workload.
        log: Takes down what happens.
        now_s: The time since the run began.
        stop_s: From when on no turn starts.
        gap_scale: Gaps are so many times as long as scripted.
        after_error: What sessions do then.
        history: What stands for replies.
        name_prefix: Begins every session's id.
    """

    caller: ModelCaller
    requests: RequestMaker
    words: WordStream
    tokenisation: Tokenisation
    block_size_tokens: int
    log: LoadLog
    now_s: Callable[[], float]
    stop_s: float
    gap_scale: float
    after_error: AfterError
    history: History
    name_prefix: str


class SessionPlayer:
    """Plays one session, or sub-agent.

    Args:
        stage: Where.
        script: What it does.
        round_number: How often the workload has begun again.
        parent: The conversation of who started it, or None.
    """

    def __init__(
        self,
        stage: Stage,
        script: SessionScript,
        round_number: int,
        parent: Conversation | None = None,
    ) -> None:
        self._stage = stage
        self._script = script
        self._round = round_number
        suffix = f"@{round_number}" if round_number else ""
        self._id = f"{stage.name_prefix}{script.session_id}{suffix}"
        self._is_sub_agent = parent is not None
        self._num_turns = 0
        self._first_body: bytes | None = None
        name = SpokenName(script.session_id, round_number)
        self._conversation = (
            Conversation(name, stage.words, stage.tokenisation, stage.block_size_tokens)
            if parent is None
            else parent.fork(name)
        )

    def prepare(self) -> None:
        """Make the first prompt now, so that it is there when it is due."""
        if self._first_body is None and self._script.turns:
            self._first_body = self._body(self._script.turns[0])

    async def play(self, due_s: float) -> SessionEnd:
        """Play it from the time when it is due; return how it ended."""
        log = self._stage.log
        if due_s >= self._stage.stop_s:
            return SessionEnd.STOPPED
        log.session_started()
        end, ended_s = SessionEnd.STOPPED, due_s
        try:
            end, ended_s = await self._turns(due_s)
        finally:
            log.session_ended(
                SessionRecord(self._id, self._is_sub_agent, due_s, ended_s, self._num_turns, end)
            )
        return end

    async def _turns(self, due_s: float) -> tuple[SessionEnd, float]:
        """Play the turns; return how it ended, and when."""
        ended_s = due_s
        for number, turn in enumerate(self._script.turns):
            if number:
                due_s = ended_s + turn.gap_s * self._stage.gap_scale
            if due_s >= self._stage.stop_s:
                return SessionEnd.STOPPED, ended_s
            ended_s, is_answered = await self._turn(number, turn, due_s)
            if not is_answered and self._stage.after_error is AfterError.END:
                return SessionEnd.FAILED, ended_s
            if turn.children:
                end = await self._children(turn, ended_s)
                ended_s = self._stage.now_s()
                if end is not SessionEnd.COMPLETED:
                    return end, ended_s
        return SessionEnd.COMPLETED, ended_s

    async def _turn(self, number: int, turn: ScriptedTurn, due_s: float) -> tuple[float, bool]:
        """Make one call when it is due; return when it ended, and whether it got its reply."""
        stage, talk = self._stage, self._conversation
        # Made while there is time: encoding a long prompt must not delay its sending.
        body, self._first_body = self._first_body or self._body(turn), None
        headers = stage.requests.headers_of(self._id)
        await self._until(due_s)
        record = TurnRecord(self._id, number, due_s, turn.isl_tokens, turn.osl_tokens)
        stage.log.turns.append(record)
        try:
            reply = await stage.caller.call(record, body, headers)
        except CallFailedError as error:
            stage.log.failed(record, error)
            talk.fill(turn.osl_tokens)
            return record.ended_s, False
        stage.log.answered(record)
        self._num_turns += 1
        if record.prompt_tokens is not None:
            talk.counted(record.prompt_tokens)
        if reply.text and stage.history is History.REPLIES:
            talk.hear(reply.text, reply.text_tokens)
        else:  # nothing but reasoning or calls of tools, or not wanted
            talk.fill(turn.osl_tokens)
        return record.ended_s, True

    def _body(self, turn: ScriptedTurn) -> bytes:
        messages = self._conversation.ask(turn)
        return self._stage.requests.body(self._id, messages, turn.osl_tokens)

    async def _children(self, turn: ScriptedTurn, ended_s: float) -> SessionEnd:
        """Play the sub-agents that a turn started, side by side; return the worst of their ends."""
        ends: list[SessionEnd] = []

        async def play(script: SessionScript) -> None:
            player = SessionPlayer(self._stage, script, self._round, self._conversation)
            ends.append(await player.play(ended_s + script.start_delay_s * self._stage.gap_scale))

        async with anyio.create_task_group() as tasks:
            for script in turn.children:
                tasks.start_soon(play, script)
        for worst in (SessionEnd.FAILED, SessionEnd.STOPPED):
            if worst in ends:
                return worst
        return SessionEnd.COMPLETED

    async def _until(self, due_s: float) -> None:
        while (left_s := due_s - self._stage.now_s()) > EARLY_S:  # noqa: ASYNC110 - the time is waited for
            await anyio.sleep(max(left_s, SHORTEST_SLEEP_S))
