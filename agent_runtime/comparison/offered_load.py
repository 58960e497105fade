"""Sessions that keep coming, whether or not the rack keeps up: a workload at a load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent_runtime.comparison.capacity import Capacity
from agent_runtime.workload.agentx import again
from agent_runtime.workload.session_script import Workload


def offered(
    workload: Workload, capacity: Capacity, *, load: float, num_sessions: int | None, seed: int
) -> Workload:
    """Return sessions of a workload that come at random at a share of what the rack can serve.

    Args:
        workload: Sessions to draw from.
        capacity: Of the rack, for them.
        load: Sessions offered over sessions that could be served.
        num_sessions: How many come; by default each of the workload once. More than there are
            come again under other names, with KV of their own.
        seed: Of order and times. At equal seeds the sessions and their order are the same at every
            load.
    """
    rng = np.random.default_rng([seed, 1])
    there = len(workload.sessions)
    count = there if num_sessions is None else num_sessions
    rounds = [rng.permutation(there) for _ in range(-(-count // there))]
    order = np.concatenate(rounds)[:count]
    gaps = rng.exponential(1.0, count) / (capacity.sessions_per_s * load)
    sessions = [
        workload.sessions[index] if number < there else again(workload, int(index), number // there)
        for number, index in enumerate(order)
    ]
    return replace(
        workload,
        sessions=tuple(sessions),
        arrives_s=tuple((np.cumsum(gaps) - gaps[0]).tolist()),
    )
