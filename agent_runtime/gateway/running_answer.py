"""The turns of a planned request while they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Self

from agent_runtime.errors import BackendError
from agent_runtime.gateway.dialect import TurnUsage
from agent_runtime.gateway.merged_progress import Numbered, merged_progress
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.planned_turn import PlannedTurn
from agent_runtime.gateway.turn_telemetry import WatchedTurn
from agent_runtime.turns import RunningTurn, TurnPlacement, TurnProgress, TurnRunner
from scheduler.events import GapCause
from scheduler.ids import SessionId
from scheduler.session_view import SessionPhase


class RunningAnswer:
    """Gives the steps of all choices as they come, and keeps the books about them.

    Args:
        turn: What is answered.
        steps: Its choices' progress.
        placement: Of its first turn.
        books: Told of what happens.

    Attributes:
        placement: Of its first turn.
    """

    __slots__ = ("_begun", "_books", "_num_cached", "_num_output", "_steps", "_turn", "placement")

    def __init__(
        self,
        turn: PlannedTurn,
        steps: AsyncIterator[Numbered],
        placement: TurnPlacement,
        books: TurnBooks,
    ) -> None:
        self._turn, self._steps, self._books = turn, steps, books
        self.placement = placement
        self._begun: set[int] = set()
        self._num_cached = self._num_output = 0

    @property
    def used(self) -> TurnUsage:
        """Tokens so far."""
        return TurnUsage(self._turn.num_prompt_tokens, self._num_output, self._num_cached)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Numbered:
        try:
            number, step = await anext(self._steps)
        except StopAsyncIteration:
            self._books.watched.answered(self.used)
            raise
        except BackendError as error:
            self._books.watched.broke(error)
            raise
        self._take(number, step)
        return number, step

    def _take(self, number: int, step: TurnProgress) -> None:
        turn = self._turn
        if number not in self._begun:
            if not self._begun:
                self._books.first_token()
            self._begun.add(number)
            if number % turn.request.num_choices == 0:
                self._num_cached += step.num_cached_tokens
        self._num_output += step.num_new_tokens
        if step.finished:
            choice, sessions = turn.choices[number], self._books.opening.sessions
            sessions.turn_ended(choice.session, choice.prompt.num_tokens, step.num_cached_tokens)
            if choice.digest is not None:
                sessions.remember(choice.session, turn.request.keys, choice.digest)


@dataclass(frozen=True, slots=True)
class TurnBooks:
    """Where a request's turns are written down.

    Attributes:
        opening: Knows the sessions and the runtime.
        watched: For whoever counts.
        arrived_s: When the request came, on the runtime's clock.
    """

    opening: Opening
    watched: WatchedTurn
    arrived_s: float

    def first_token(self) -> None:
        """Note when the first token came."""
        self.watched.first_token(self.opening.runner.now_s() - self.arrived_s)


async def run_answer(turn: PlannedTurn, books: TurnBooks, stack: AsyncExitStack) -> RunningAnswer:
    """Have the turns of a request run until the stack is left.

    Raises:
        RequestError: They can't be run.
        BackendError: The backend takes none.
    """
    runner = books.opening.runner
    progress: list[RunningTurn] = []
    for choice in turn.choices:
        stack.enter_context(books.opening.turn_under_way(choice.session))
        request = turn.turn_request(choice, books.opening.next_turn_id())
        if request.parent_id is not None:
            tell_parent(runner, request.parent_id)
        progress.append(await stack.enter_async_context(runner.open_turn(request)))
    placement = progress[0].placement
    books.watched.placed(placement)
    live = turn.request.stream
    steps = await stack.enter_async_context(merged_progress(progress, live=live))
    return RunningAnswer(turn, steps, placement, books)


def tell_parent(runner: TurnRunner, parent_id: SessionId) -> None:
    """Let the scheduler know that a session in a gap waits for one that it started."""
    view = runner.session_view(parent_id)
    if view is None or view.phase is not SessionPhase.GAP:
        return
    if view.gap.cause is not GapCause.CHILDREN:
        runner.hint_gap(parent_id, replace(view.gap, cause=GapCause.CHILDREN))
