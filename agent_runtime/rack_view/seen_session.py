"""One session as it is shown: what it does, where, and since when."""

from __future__ import annotations

from agent_runtime.errors import InternalError
from agent_runtime.measurement.turn_stories import TurnStory
from agent_runtime.rack_view.messages import SessionRow, SessionState, told_s
from scheduler.ids import ReplicaId, SessionId, TurnId

NOWHERE = -1


class SeenSession:
    """A session with its turns under way.

    It does what its most advanced turn does: one that decodes before one that is prefilled before
    one that is held; of several, the one that came into it first.

    Attributes:
        opened_s: When its first turn arrived, as far as is known.
        last_ended_s: When its latest turn ended, None before.
        closes: Whether it is forgotten once no turn is under way.
        failed: Whether a turn of it was refused.
        version: Of the picture, when it last changed.

    Invariant: a turn under way is in exactly one of ``_held``, ``_prefilling`` and ``_decoding``.
    """

    __slots__ = (
        "_context_tokens", "_decoding", "_held", "_home", "_prefilling", "_row", "closes", "failed",
        "last_ended_s", "opened_s", "parent_id", "session_id", "version",
    )  # fmt: skip

    def __init__(self, session_id: SessionId, parent_id: SessionId | None, opened_s: float) -> None:
        self.session_id = session_id
        self.parent_id = parent_id
        self.opened_s = opened_s
        self.last_ended_s: float | None = None
        self.closes = False
        self.failed = False
        self.version = 0
        self._home: ReplicaId | None = None
        self._context_tokens = 0
        self._held: dict[TurnId, TurnStory] = {}
        self._prefilling: dict[TurnId, TurnStory] = {}
        self._decoding: dict[TurnId, TurnStory] = {}
        self._row: SessionRow | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no turn is under way."""
        return not (self._held or self._prefilling or self._decoding)

    @property
    def context_tokens(self) -> int:
        """Of the turn that is shown, or of the latest."""
        shown = self._shown()
        return self._context_tokens if shown is None else shown[1].prompt_tokens

    def changed(self, version: int) -> None:
        """Note that the picture's version is due to it."""
        self.version = version
        self._row = None

    def arrived(self, story: TurnStory) -> None:
        """A turn is held, if only for this moment."""
        self._held[story.turn] = story
        self.closes = False

    def dispatched(self, story: TurnStory) -> None:
        """A turn runs."""
        if self._held.pop(story.turn, None) is None:
            self._take_out(story.turn)
        self._prefilling[story.turn] = story
        self._home = story.replica

    def prefilled(self, story: TurnStory) -> None:
        """A turn has its first token."""
        if self._prefilling.pop(story.turn, None) is None:
            self._take_out(story.turn)
        self._decoding[story.turn] = story

    def ended(self, story: TurnStory, num_context_tokens: int) -> None:
        """A turn is over; of one that never ran, no context is left."""
        if self._decoding.pop(story.turn, None) is None:
            self._take_out(story.turn)
        self.last_ended_s = story.ended_s
        if story.replica is not None:
            self._context_tokens = num_context_tokens

    def row(self) -> SessionRow:
        """Return what there is to see; the same object until it changes."""
        if self._row is None:
            self._row = self._made_row()
        return self._row

    def _made_row(self) -> SessionRow:
        shown = self._shown()
        if shown is None:
            since_s = self.opened_s if self.last_ended_s is None else self.last_ended_s
            state, turn_id, context_tokens = SessionState.GAP, "", self._context_tokens
            replica = self._home
        else:
            state, story, since_s = shown
            turn_id, context_tokens = story.turn, story.prompt_tokens
            replica = self._home if story.replica is None else story.replica
        return SessionRow(
            self.session_id,
            int(state),
            NOWHERE if replica is None else replica,
            context_tokens,
            told_s(since_s),
            turn_id,
            "" if self.parent_id is None else self.parent_id,
        )

    def _take_out(self, turn_id: TurnId) -> None:
        self._held.pop(turn_id, None)
        self._prefilling.pop(turn_id, None)
        self._decoding.pop(turn_id, None)

    def _shown(self) -> tuple[SessionState, TurnStory, float] | None:
        """Return the most advanced turn, what it does and since when."""
        for story in self._decoding.values():
            return SessionState.DECODE, story, _known(story.prefilled_s)
        for story in self._prefilling.values():
            return SessionState.PREFILL, story, _known(story.dispatched_s)
        for story in self._held.values():
            return SessionState.HELD, story, story.arrived_s
        return None


def _known(at_s: float | None) -> float:
    if at_s is None:
        raise InternalError("a turn is in a state that it never came into")
    return at_s
