"""Where in a program's life tool calls are, so that what they open has the same id in every life.

A later life does not repeat finished calls, so sessions that calls open can't be counted along with
those of the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class _Call:
    place: str
    session_id: str
    num_named: int = 0


# Known to whatever a tool awaits or starts, through however many functions of the program's.
_CURRENT: ContextVar[_Call | None] = ContextVar("panjiu_tool_call", default=None)


@contextmanager
def in_call(place: str, session_id: str) -> Iterator[None]:
    """Let what is opened be within a tool call.

    Args:
        place: Of the call, e.g. ``coder/2.5.1``: the session, and from 1 on the number of its step,
            of the model's message in that, of the call in that.
        session_id: Whose call it is.
    """
    token = _CURRENT.set(_Call(place, session_id))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_place() -> str:
    """Return the place of the tool call under way; nothing outside of all calls."""
    call = _CURRENT.get()
    return "" if call is None else call.place


def child_name_in_call(session_id: str) -> str | None:
    """Return the id of the next child that a call of a session's opens; None outside of its calls.

    Args:
        session_id: The session.
    """
    call = _CURRENT.get()
    if call is None or call.session_id != session_id:
        return None
    call.num_named += 1
    return f"{call.place}.{call.num_named}"
