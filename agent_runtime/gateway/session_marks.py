"""By what sessions are found whose requests do not name them: digests of what was said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

from agent_runtime.gateway.session_keys import SessionKeys


def sought_marks(keys: SessionKeys, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Return the marks by which a request's session may be found, best first.

    With each comes whether it leads to sessions alone that have no turn under way.
    """
    for digest in reversed(digests):
        yield answer_mark(keys, digest), False
    if keys.scope is not None or keys.thread is not None:
        for digest in reversed(digests[:-1]):  # its turn before, though the reply was replaced
            yield prompt_mark(keys, digest), True


def answer_mark(keys: SessionKeys, digest: bytes) -> bytes:
    """Return what is kept of a conversation up to a reply."""
    if not keys.tenant_id and keys.scope is None:
        return digest
    return _mixed("answer", keys.tenant_id, keys.scope or "", digest)


def prompt_mark(keys: SessionKeys, digest: bytes) -> bytes:
    """Return what is kept of a request's own messages."""
    name = keys.thread if keys.scope is None else keys.scope
    return _mixed("prompt", keys.tenant_id, name or "", digest)


def _mixed(kind: str, tenant_id: str, name: str, digest: bytes) -> bytes:
    words = f"{kind}\0{tenant_id}\0{name}\0".encode("utf-8", "surrogatepass")
    return blake2b(words + digest, digest_size=16).digest()
