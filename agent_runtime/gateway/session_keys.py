"""Who is talking, as far as a request's body and headers say.

Some clients name one conversation (``exact``), others something that several of them share, as a
program's main agent and its helpers do (``scope``): there the history tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

import msgspec
from pydantic_core import from_json

from agent_runtime.session_headers import SESSION_HEADER
from scheduler.events import NO_TENANT
from scheduler.ids import TenantId

EXACT_HEADERS = ("thread-id",)
"""Codex's: a sub-agent has one of its own."""

SCOPE_HEADERS = (
    "x-claude-code-session-id",
    "session-id",
    "x-opencode-session",
    "x-session-affinity",
)
"""Claude Code's, Codex's, OpenCode's; the title of a conversation is asked for under its id."""

THREAD_HEADER = "x-correlation-id"
"""AIPerf's, one a conversation; others send another one with every request."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks, beside what is in the body.

    Attributes:
        headers: Of the request; looked up in lower case.
        tenant_id: Whose key it came with.
        now_s: On the runtime's clock.
    """

    headers: Mapping[str, str]
    tenant_id: TenantId = NO_TENANT
    now_s: float = 0.0


class SessionKeys(msgspec.Struct, frozen=True):
    """What a request says of whose turn it is.

    Attributes:
        tenant_id: Sessions of different tenants never meet.
        exact: Names the session.
        scope: The session is one of those asked for under this name; the history says which.
        thread: A name to go by where the history alone is not known.
        cache_salt: What the caller keeps its KV apart by.
    """

    tenant_id: TenantId = NO_TENANT
    exact: str | None = None
    scope: str | None = None
    thread: str | None = None
    cache_salt: str | None = None


def session_keys(
    caller: Caller,
    *,
    session_id: str | None,
    continued: str | None = None,
    scope: str | None = None,
    cache_salt: str | None = None,
) -> SessionKeys:
    """Return what a request says.

    Args:
        caller: Whose headers.
        session_id: The body's.
        continued: The session of the response that it goes on with.
        scope: What the body's own fields say, e.g. ``prompt_cache_key``.
        cache_salt: The body's.
    """
    headers = caller.headers
    exact = session_id
    if exact is None and SESSION_HEADER in headers:
        exact = _from_header(headers[SESSION_HEADER])
    if exact is None:
        exact = continued
    if exact is None and scope is None:
        exact = _first(headers, EXACT_HEADERS)
    return SessionKeys(
        tenant_id=caller.tenant_id,
        exact=exact,
        scope=_first(headers, SCOPE_HEADERS) if scope is None else scope,
        thread=headers.get(THREAD_HEADER),
        cache_salt=cache_salt,
    )


def claude_code_session(user_id: object) -> str | None:
    """Return the session id in Claude Code's ``metadata.user_id``, which is JSON in a string."""
    if not isinstance(user_id, str) or not user_id.startswith("{"):
        return None
    try:
        said = from_json(user_id)
    except ValueError:  # any other user id
        return None
    session_id = said.get("session_id") if isinstance(said, dict) else None
    return session_id if isinstance(session_id, str) and session_id else None


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((headers[name] for name in names if headers.get(name)), None)


def _from_header(value: str) -> str:
    """Return the id that a header means, so that what we sent percent-encoded finds back.

    Starlette reads headers as Latin-1; clients that write non-ASCII as it is write UTF-8.
    """
    return unquote(value.encode("latin-1"), errors="backslashreplace")
