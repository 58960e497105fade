"""OpenAI's ``prompt_cache_*`` fields: who shares a prompt, and for how long it is worth keeping."""

from __future__ import annotations

from agent_runtime.errors import InvalidRequestError

RETENTION_S = {"in_memory": 300.0, "in-memory": 300.0, "24h": 86_400.0}
"""OpenAI's guide: in memory for 5 to 10 minutes without use, at the least; or for 24 hours."""


def retention_lease_s(retention: str | None) -> float | None:
    """Return how long the KV should be kept, None if nothing was said.

    Raises:
        InvalidRequestError: It is none of OpenAI's; names the field.
    """
    if retention is None:
        return None
    lease_s = RETENTION_S.get(retention)
    if lease_s is None:
        raise InvalidRequestError(
            f"prompt_cache_retention: expected one of {', '.join(RETENTION_S)}",
            param="prompt_cache_retention",
        )
    return lease_s
