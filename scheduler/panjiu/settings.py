"""What the policy can be set to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PanjiuSettings:
    """Chosen on recorded coding agents at loads of 0.6 to 1.6 (docs/scheduling.md).

    Attributes:
        reserve: Share of a replica's HBM that is never planned with: blocks that are half full,
            replies that are longer than expected.
        gate_s: A replica takes on prefill as long as it has less than this ahead of it; so much is
            decided early, and the engine never idles for want of the next turn.
        drain_s: A prefill of so many seconds is not begun beside turns that decode.
        drain_share: It waits for them for so much of its length at most.
        price: A session's KV is dropped for another's if a block-second of it saves less than this
            many times the prefill that a turn that goes on gets done per block-second.
        turn_s, cycle_s: A turn's useful prefill and the time from one turn to the next, for that.
        crowd: What a prefill costs each turn that decodes beside it, as a share of its length.
        shared_steps: Decode steps that a turn is expected to share with those beside it.
        patience: A turn that has been held so many times as long as all its session's work takes
            goes first, and may have others' idle KV dropped at any price: the cap on slowdown.
        most_pauses: So does a turn of a session that was held for over a second so many times.
        tries: Held turns looked at per event.
        output_tokens: Reply that room is set aside for.
        lease_share: Share of a replica's HBM that leases may keep from being dropped.
        link_lead_s: KV is moved out of the way only over links that are idle within this.
    """

    reserve: float = 0.02
    gate_s: float = 1.0
    drain_s: float = 10.0
    drain_share: float = 0.2
    price: float = 0.3
    turn_s: float = 2.0
    cycle_s: float = 40.0
    crowd: float = 1.0
    shared_steps: int = 200
    patience: float = 20.0
    most_pauses: int = 40
    tries: int = 4
    output_tokens: int = 300
    lease_share: float = 0.25
    link_lead_s: float = 0.05
