"""What the head of an engine's queue lacks, told from outside."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.ids import ReplicaId
from scheduler.rack import Rack
from scheduler.session import Turn


def lacking_tokens(
    rack: Rack,
    replica_id: ReplicaId,
    order: Callable[[Turn], float],
    kept_tokens: Callable[[Turn], int],
    num_kept_tokens: int,
) -> tuple[Turn | None, float]:
    """Return who is to be admitted next on a replica, and the KV tokens it lacks.

    Args:
        rack: As it is at this event.
        replica_id: Where.
        order: The engine's, of the turns there; smaller first.
        kept_tokens: Of a turn's context, those that are kept for it.
        num_kept_tokens: Of all sessions without a turn there; of use where nobody listens.

    Returns:
        None and 0 if nobody waits. What lacks is negative if there is room.
    """
    capacity = rack.fleet.max_context_tokens
    turns = rack.turns[replica_id]
    new = sorted((turn for turn in turns if not turn.is_prefilled), key=order)
    if not new:
        return None, 0.0
    if rack.probe is None:
        return new[0], rack.active_tokens.loads[replica_id] + num_kept_tokens - capacity
    # Turns of this very event are not in the engine yet: they wait, too.
    num_waiting = len(turns) - rack.probe.num_running(replica_id)
    if num_waiting <= 0:
        return None, 0.0
    head = new[max(0, len(new) - num_waiting)]
    free = (1 - rack.probe.kv_usage(replica_id)) * capacity
    return head, head.num_prompt_tokens - kept_tokens(head) - free
