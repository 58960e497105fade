"""Whose KV a prompt may find: its own tenant's, unless the operator lets tenants share.

A prefix hit makes a turn faster, and by the clock it tells whether somebody asked the same before.
So what keeps prompts apart is vLLM's ``cache_salt``: equal prompts with different salts share no
block. A tenant's is made of its name and of what it gives itself; since it is made anew for every
request, nobody can ask with another tenant's.
"""

from __future__ import annotations

from hashlib import sha256

from agent_runtime.gateway.session_keys import SessionKeys


def kv_salt(keys: SessionKeys, *, is_shared: bool) -> str | None:
    """Return the salt of a prompt, None for none.

    Args:
        keys: Whose it is, and the ``cache_salt`` that came with it.
        is_shared: Whether tenants may find each other's KV; only what they give counts then.
    """
    if is_shared or not keys.tenant_id:
        return keys.cache_salt
    data = f"panjiu\0{keys.tenant_id}\0{keys.cache_salt or ''}"
    return sha256(data.encode("utf-8", "surrogatepass")).hexdigest()
