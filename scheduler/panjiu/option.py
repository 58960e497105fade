"""One way to run a turn, priced in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.ids import ReplicaId
from scheduler.panjiu.room import Victim
from scheduler.receipt import PricedOption


@dataclass(slots=True)
class Option:
    """A turn on a replica.

    Attributes:
        replica_id: Where.
        wait_s: Prefill that is ahead of it there.
        move_s: Until its KV has been pulled from another replica.
        load_s: Until it has been loaded from host memory; the engine does that.
        prefill_s: Until its first token, from then on.
        crowd_s: What that costs the turns that decode there.
        loss_s: What dropping the victims costs, times the odds that they come back for it.
        num_cached_tokens: Of its prompt, there by then.
        num_needed_blocks: Room it takes beyond what it has there.
        victims: Whom it takes that from.
    """

    replica_id: ReplicaId
    wait_s: float
    move_s: float
    load_s: float
    prefill_s: float
    crowd_s: float
    loss_s: float
    num_cached_tokens: int
    num_needed_blocks: int
    victims: list[Victim]

    def priced(self) -> PricedOption:
        """Return it as a receipt shows it."""
        return PricedOption(
            self.replica_id,
            self.wait_s,
            self.move_s,
            self.load_s,
            self.prefill_s,
            self.crowd_s,
            self.loss_s,
            self.num_cached_tokens,
            len(self.victims),
        )

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.wait_s + self.move_s + self.load_s + self.prefill_s + self.crowd_s + self.loss_s
