"""Why a turn went where it went: what could have been done, what each would have cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from scheduler.ids import ReplicaId, TurnId


class PricedOption(NamedTuple):
    """One way to run a turn, in seconds of the scheduler's one currency.

    Attributes:
        replica_id: Where.
        wait_s: Prefill ahead of it there.
        move_s: Pulling its KV there.
        load_s: Loading it from host memory.
        prefill_s: Computing the rest of its prompt.
        crowd_s: Delay of the turns that decode there while it is prefilled.
        decode_s: What decoding beside them takes longer, for it and for them.
        loss_s: KV dropped for it that will be missed.
        num_cached_tokens: Of its prompt, there by then.
        num_dropped_sessions: Whose KV would make room.
    """

    replica_id: ReplicaId
    wait_s: float
    move_s: float
    load_s: float
    prefill_s: float
    crowd_s: float
    decode_s: float
    loss_s: float
    num_cached_tokens: int
    num_dropped_sessions: int

    @property
    def ttft_s(self) -> float:
        """When its first token was to come, from the decision on."""
        return self.wait_s + self.move_s + self.load_s + self.prefill_s

    @property
    def seconds(self) -> float:
        """All it costs, others' delays included."""
        return self.ttft_s + self.crowd_s + self.decode_s + self.loss_s


@dataclass(frozen=True, slots=True)
class Receipt:
    """A decision to run a turn, or to hold it.

    Attributes:
        turn_id: Which turn.
        chosen: Where it runs; None when it is held.
        options: What was looked at and had room; the chosen one costs least.
        is_due: Whether it was held so long that it goes before others.
    """

    turn_id: TurnId
    chosen: ReplicaId | None
    options: tuple[PricedOption, ...]
    is_due: bool = False
