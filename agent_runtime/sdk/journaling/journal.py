"""Takes sessions down in a store, and gives them back in later lives of a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from agent_runtime.clock import epoch_s
from agent_runtime.errors import ConfigError, JournalError
from agent_runtime.sdk.journal import SessionJournal, SessionOpened
from agent_runtime.sdk.journaling.rows import SessionRow, StepRow
from agent_runtime.sdk.journaling.session import StoredSession, differs
from agent_runtime.sdk.journaling.store import (
    ClaimSession,
    Look,
    Opening,
    OpenSession,
    Reader,
    Refused,
    ReleaseSession,
)
from agent_runtime.sdk.journaling.stored import (
    StoredStep,
    check_unfinished,
    last_of_id,
    stored_steps,
)
from agent_runtime.sdk.journaling.summaries import SessionSummary
from agent_runtime.sdk.journaling.texts import as_json, as_text
from agent_runtime.sdk.journaling.writer import Writer


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A session that broke off.

    Attributes:
        summary: What it is.
        done: Its steps before.
        step: That was under way, or failed.
        journal: Takes down how it goes on.
    """

    summary: SessionSummary
    done: Sequence[StoredStep]
    step: StoredStep
    journal: SessionJournal


class StoredJournal:
    """A journal in a store.

    Args:
        writer: Of the store.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._num_opened: Counter[tuple[str, str]] = Counter()
        self._sessions: dict[str, StoredSession] = {}

    @property
    def name(self) -> str:
        """What people call it."""
        return self._writer.name

    async def session(self, opened: SessionOpened) -> StoredSession:
        """Open a session, or go on with the one of an earlier life."""
        before = self._sessions.get(opened.session_id)
        if before is not None and before.is_open:
            raise JournalError(
                f"session {opened.session_id} is open already; a session has one place at a time: "
                "use other ids, or leave it first"
            )
        parent = self._sessions.get(opened.parent_id) if opened.parent_id is not None else None
        parent_key = None if parent is None else (parent.opening.key, parent.num_begun)
        at = opened.session_id, opened.place
        number = self._num_opened[at]
        self._num_opened[at] += 1
        opening = await self._writer.do(OpenSession(opened, number, parent_key, epoch_s()))
        if isinstance(opening, Refused):
            self._num_opened[at] -= 1
            raise JournalError(opening.why)
        session = StoredSession(self._writer, opened.session_id, opening, parent)
        if opening.found is not None:
            try:
                self._check_same(opened, opening.found)
            except JournalError:
                self._writer.post(ReleaseSession(opened.session_id))
                raise
        self._sessions[opened.session_id] = session
        return session

    async def take_up(self, session_id: str) -> Unfinished:
        """Open a session of an earlier life where it broke off, without the program before that.

        Raises:
            ConfigError: There is none, or nothing of it is left to do.
            JournalError: The journal can't be read, or the session is another program's.
        """
        last_key = await self._writer.do(ClaimSession(session_id))
        if isinstance(last_key, Refused):
            raise JournalError(last_key.why)

        try:
            found, steps, rows = await self._writer.do(Look(partial(_last, session_id=session_id)))
            summary = last_of_id(found, session_id, self.name)
            check_unfinished(summary, steps)
        except ConfigError:
            self._writer.post(ReleaseSession(session_id))
            raise
        opening = Opening(summary.key, last_key, None, rows)
        session = StoredSession(self._writer, session_id, opening, None, num_begun=len(rows) - 1)
        self._sessions[session_id] = session
        return Unfinished(summary, steps[:-1], steps[-1], session)

    def _check_same(self, opened: SessionOpened, found: SessionRow) -> None:
        """See to it that a session is the one of the earlier life."""
        parent_id = None if opened.parent_id is None else as_text(opened.parent_id)
        for what, expected, got in (
            ("agent", found.agent, as_text(opened.agent)),
            ("parent", found.parent_id, parent_id),
            ("number of messages of its parent", found.num_kept, opened.num_kept),
            ("first messages", found.added, as_json(list(opened.added))),
        ):
            if expected != got:
                raise differs(self.name, opened.session_id, None, what, (expected, got))


def _last(
    reader: Reader, *, session_id: str
) -> tuple[list[SessionSummary], list[StoredStep], list[StepRow]]:
    """Return what there is of an id, and the steps of the last session that had it."""
    found = reader.summaries(session_id)
    if not found:
        return [], [], []
    return found, stored_steps(reader, found[-1].key), reader.steps(found[-1].key)
