"""What can go wrong with a call, by kinds that a report counts."""

from __future__ import annotations

from enum import StrEnum

MAX_SHOWN = 300
"""Characters of a server's words that a report shows."""


class ErrorKind(StrEnum):
    """Kinds; ``http_STATUS`` is one for each status that is not 200."""

    CONNECTION = "connection"
    TIMEOUT = "timeout"
    NO_STREAM = "no_stream"
    BROKEN_STREAM = "broken_stream"
    ERROR_IN_STREAM = "error_in_stream"
    EMPTY_REPLY = "empty_reply"


MEANINGS = {
    ErrorKind.CONNECTION: "no connection, or it broke before the answer began",
    ErrorKind.TIMEOUT: "the server sent nothing for longer than --timeout",
    ErrorKind.NO_STREAM: "an answer of status 200 that is no event stream",
    ErrorKind.BROKEN_STREAM: "a stream that ended without an end, or can't be read",
    ErrorKind.ERROR_IN_STREAM: "an error as an event of the stream",
    ErrorKind.EMPTY_REPLY: "a reply without a token",
}


class CallFailedError(Exception):
    """A call that got no whole reply.

    Attributes:
        kind: One of ``ErrorKind``, or ``http_STATUS``.
        message: What the server or the network said, cut short.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        self.message = message if len(message) <= MAX_SHOWN else message[:MAX_SHOWN] + "..."
        super().__init__(f"{kind}: {self.message}")


def http_error(status: int, body: bytes) -> CallFailedError:
    """Return the error of an answer with another status than 200."""
    return CallFailedError(f"http_{status}", body.decode("utf-8", "replace").strip() or "no body")
