"""What becomes of single turns, as decisions tell it: when, where, why, and how it came out."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.commands import Dispatch, Refuse
from scheduler.decision import Decision
from scheduler.events import Event, PrefillEnded, TurnArrived, TurnEnded
from scheduler.ids import ReplicaId, SessionId, TurnId
from scheduler.receipt import Receipt


@dataclass(slots=True)
class TurnStory:
    """A turn; times are emulated seconds.

    Attributes:
        session: Whose turn it is.
        arrived_s, dispatched_s, prefilled_s, ended_s: When; None where it did not happen, or where
            its first token came with all others and nobody saw when.
        replica: Where it ran.
        expected_cached_tokens: Of its prompt, there by the scheduler's reckoning.
        cached_tokens: Of its prompt, found there; None until it has a token.
        receipts: ``(when, receipt)`` of the decisions about it, in order.
    """

    turn: TurnId
    session: SessionId
    prompt_tokens: int
    arrived_s: float
    dispatched_s: float | None = None
    prefilled_s: float | None = None
    ended_s: float | None = None
    replica: ReplicaId | None = None
    expected_cached_tokens: int = 0
    cached_tokens: int | None = None
    receipts: list[tuple[float, Receipt]] = field(default_factory=list)

    @property
    def held_s(self) -> float:
        """Seconds from its arrival to its dispatch."""
        return 0.0 if self.dispatched_s is None else self.dispatched_s - self.arrived_s

    @property
    def ttft_s(self) -> float | None:
        """Seconds from its arrival to its first token."""
        return None if self.prefilled_s is None else self.prefilled_s - self.arrived_s

    @property
    def choice(self) -> tuple[float, Receipt] | None:
        """When and by which receipt it was sent, if there is one."""
        sent = [entry for entry in self.receipts if entry[1].chosen is not None]
        return sent[-1] if sent else None

    @property
    def predicted_s(self) -> float | None:
        """Seconds to its first token that the choice counted on."""
        if self.choice is None:
            return None
        receipt = self.choice[1]
        return next(o.ttft_s for o in receipt.options if o.replica_id == receipt.chosen)

    @property
    def realised_s(self) -> float | None:
        """Seconds to its first token that it took from the choice on."""
        if self.choice is None or self.prefilled_s is None:
            return None
        return self.prefilled_s - self.choice[0]


class TurnStories:
    """Follows the turns that are under way. O(1) a decision, and what it carries.

    Attributes:
        under_way: Turns that arrived and are not over.
    """

    __slots__ = ("under_way",)

    def __init__(self) -> None:
        self.under_way: dict[TurnId, TurnStory] = {}

    def take(self, decision: Decision) -> TurnStory | None:
        """Take in a decision.

        Returns:
            The turn that is over by it: it ended, or it was refused.
        """
        now_s = decision.now_s
        over = self._happened(decision.event, now_s)
        for receipt in decision.receipts:
            story = self.under_way.get(receipt.turn_id)
            if story is not None:
                story.receipts.append((now_s, receipt))
        for command in decision.commands:
            if isinstance(command, Dispatch):
                self._dispatched(command, now_s)
            elif isinstance(command, Refuse):
                over = self.under_way.pop(command.turn_id, over)
        return over

    def _happened(self, event: Event, now_s: float) -> TurnStory | None:
        if isinstance(event, TurnArrived):
            self.under_way[event.turn_id] = TurnStory(
                event.turn_id, event.session_id, event.num_prompt_tokens, now_s
            )
        elif isinstance(event, PrefillEnded):
            story = self.under_way.get(event.turn_id)
            if story is not None:
                story.prefilled_s = now_s if event.first_token_seen else None
                story.cached_tokens = event.num_cached_tokens
        elif isinstance(event, TurnEnded):
            ended = self.under_way.pop(event.turn_id, None)
            if ended is not None:
                ended.ended_s = now_s
            return ended
        return None

    def _dispatched(self, command: Dispatch, now_s: float) -> None:
        story = self.under_way.get(command.turn_id)
        if story is not None:
            story.dispatched_s = now_s
            story.replica = command.replica_id
            story.expected_cached_tokens = command.num_expected_cached_tokens
