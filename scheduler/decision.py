"""What was decided, and when: two drivers that agree have the same list of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.commands import Command
from scheduler.events import Event
from scheduler.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Decision:
    """An event and what was done about it.

    Attributes:
        now_s: When, in emulated seconds.
        event: What happened.
        commands: What to do about it, in order; often nothing.
        receipts: Why turns were sent or held, from policies that say so.
    """

    now_s: float
    event: Event
    commands: Sequence[Command]
    receipts: Sequence[Receipt] = ()
