"""The journal beside a model of it in memory, through random lives of random sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.errors import BudgetExceededError, RunCancelledError
from agent_runtime.sdk.events import Usage
from agent_runtime.sdk.journal import (
    Journal,
    Recorded,
    SessionJournal,
    SessionOpened,
    StepBegun,
    StepKind,
    StepLog,
)
from agent_runtime.sdk.journal_places import opened_journal, opened_to_read
from agent_runtime.sdk.journaling.rows import StepState
from agent_runtime.sdk.journaling.stored import stored_steps
from agent_runtime.sdk.journaling.texts import as_text
from tests.journal_places import NewJournal, in_virtual_time

IDS = ("one", "two", "\ud83d three'\"")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=5) | st.just("half of \ud83d")
USAGES = st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
STEPS = st.builds(
    StepBegun,
    st.sampled_from(StepKind),
    TEXTS,
    st.integers(0, 3),
    st.lists(st.builds(lambda text: {"role": "user", "content": text}, TEXTS), max_size=2),
    st.sampled_from([{}, {"response_format": {"type": "json_object"}}]),
)
SAID = st.tuples(st.builds(lambda text: {"role": "assistant", "content": text}, TEXTS), USAGES)
RESULT = st.builds(
    lambda text: ({"role": "tool", "tool_call_id": "c", "content": text}, None), TEXTS
)
ACTIONS = st.one_of(
    st.tuples(st.just("step"), STEPS),
    st.tuples(st.just("add"), SAID | RESULT),
    st.tuples(st.just("ended"), st.none()),
    st.tuples(st.just("failed"), TEXTS),
    st.tuples(st.just("left"), st.booleans()),
)
LIVES = st.lists(st.lists(st.tuples(st.sampled_from(IDS), ACTIONS), max_size=25), max_size=5)


@dataclass
class ModelStep:
    begun: StepBegun
    added: list[Any] = field(default_factory=list)
    state: StepState = StepState.RUNNING
    error: str = ""

    def recorded(self) -> Recorded:
        usages = [usage for _, usage in self.added if usage is not None]
        messages = [message for message, _ in self.added]
        return Recorded(messages, usages, self.state is StepState.ENDED)


@dataclass
class ModelSession:
    steps: list[ModelStep] = field(default_factory=list)
    is_closed: bool = False


@dataclass
class Living:
    """A session in one life."""

    model: ModelSession
    journal: SessionJournal
    is_last: bool
    num_begun: int = 0
    log: StepLog | None = None

    @property
    def step(self) -> ModelStep | None:
        """The step under way, if there is one that can go on."""
        if self.log is None or not self.num_begun:
            return None
        step = self.model.steps[self.num_begun - 1]
        return step if step.state is StepState.RUNNING else None


Model = dict[str, list[ModelSession]]


async def live(place: str, model: Model, actions: list[Any]) -> None:
    """Live once, as far as the actions go; then the process is no more."""
    living: dict[str, Living] = {}
    num_opened = dict.fromkeys(IDS, 0)
    async with opened_journal(place) as journal:
        for session_id, (name, what) in actions:
            if session_id not in living:
                living[session_id] = await opened(journal, model, session_id, num_opened)
            session = living[session_id]
            if name == "step":
                await begin(session, what)
            elif name == "left":
                # A program that leaves for good before it has done all again is another program.
                for_good = what and session.num_begun >= len(session.model.steps)
                await leave(session, for_good=for_good)
                del living[session_id]
            elif (step := session.step) is not None:
                await go_on(session, step, name, what)


async def opened(
    journal: Journal, model: Model, session_id: str, num_opened: dict[str, int]
) -> Living:
    opening = num_opened[session_id]
    num_opened[session_id] += 1
    journaled = await journal.session(SessionOpened(session_id, "agent", "model"))
    sessions = model.setdefault(session_id, [])
    is_last = opening >= len(sessions) - 1
    if opening == len(sessions):
        sessions.append(ModelSession())
    return Living(sessions[opening], journaled, is_last)


async def begin(session: Living, begun: StepBegun) -> None:
    before = session.step
    if before is not None:
        before.state = StepState.CANCELLED
    steps, number = session.model.steps, session.num_begun
    session.num_begun, session.log = number + 1, None
    if number == len(steps):
        steps.append(ModelStep(begun))
        session.model.is_closed = False
        session.log = await session.journal.step(begun)
        assert session.log.recorded == Recorded()
        return
    step = steps[number]
    goes_on = session.is_last and number == len(steps) - 1 and not session.model.is_closed
    fails = step.state is StepState.FAILED and not goes_on
    cancelled = step.state is StepState.CANCELLED or (
        step.state is StepState.RUNNING and not goes_on
    )
    if fails or cancelled:
        with pytest.raises(BudgetExceededError if fails else RunCancelledError) as caught:
            await session.journal.step(step.begun)
        assert not fails or str(caught.value) == as_text(step.error)
        return
    session.log = await session.journal.step(step.begun)
    if step.state is StepState.FAILED:
        step.state = StepState.RUNNING
    assert session.log.recorded == step.recorded()


async def go_on(session: Living, step: ModelStep, name: str, what: Any) -> None:
    assert session.log is not None
    if name == "add":
        step.added.append(what)
        await session.log.add(*what)
    elif name == "ended":
        step.state = StepState.ENDED
        await session.log.ended()
    else:
        step.state, step.error = StepState.FAILED, what
        await session.log.failed(BudgetExceededError(what))


async def leave(session: Living, *, for_good: bool) -> None:
    step = session.step
    if for_good and step is not None:
        step.state = StepState.CANCELLED
    session.model.is_closed = session.model.is_closed or for_good
    await session.journal.left(for_good=for_good)


def check_stored(place: str, model: Model) -> None:
    """Compare what the tables have with the model."""
    found: dict[str, list[Any]] = {}
    with opened_to_read(place) as reader:
        for summary in reader.summaries():
            steps = stored_steps(reader, summary.key)
            told = [(step.state, list(step.recorded.messages)) for step in steps]
            found.setdefault(summary.session_id, []).append(told)
            assert summary.num_steps == len(steps)
            assert summary.usage == sum((step.usage for step in steps), Usage())
    expected = [
        [[(step.state, step.recorded().messages) for step in session.steps] for session in sessions]
        for sessions in model.values()
    ]
    assert sorted(map(repr, found.values())) == sorted(map(repr, expected))


@given(lives=LIVES)
@settings(max_examples=150)
def test_every_life_finds_what_those_before_it_have_told(
    new_journal: NewJournal, lives: list[list[Any]]
) -> None:
    model: Model = {}
    with new_journal() as place:
        for actions in lives:
            in_virtual_time(partial(live, place, model, actions))
            check_stored(place, model)


@given(pauses=st.lists(st.integers(0, 30), min_size=1, max_size=40))
@settings(max_examples=20)
def test_whoever_waits_is_told_after_the_commit_and_batches_are_shared(
    new_journal: NewJournal, pauses: list[int]
) -> None:
    async def main(place: str) -> None:
        async with opened_journal(place) as journal, anyio.create_task_group() as tasks:

            async def tell(number: int, pause_ms: int) -> None:
                await anyio.sleep(pause_ms / 1000)
                session = await journal.session(SessionOpened(f"s{number}", "agent", "model"))
                log = await session.step(StepBegun(StepKind.RUN, "go", 0, ()))
                await log.add({"role": "assistant", "content": str(number)}, Usage(1))
                with opened_to_read(place) as reader:
                    (summary,) = reader.summaries(f"s{number}")
                assert summary.num_turns == 1
                await log.ended()

            for number, pause_ms in enumerate(pauses):
                tasks.start_soon(tell, number, pause_ms)

    with new_journal() as place:
        in_virtual_time(partial(main, place))
