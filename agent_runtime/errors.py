"""Errors of the runtime; the class says who is at fault, the message says what to do.

AgentRuntimeError
├─ ConfigError              a bad option or file, before anything runs
│  ├─ TraceError            a trace file: names the file, the line and the field
│  └─ ScriptError           a script of replies: names the file, the rule and the field
├─ RequestError             the caller of the endpoint -> HTTP 4xx
│  ├─ InvalidRequestError   400
│  ├─ ContextTooLongError   400
│  ├─ UnknownModelError     404
│  ├─ UnknownSessionError   404
│  ├─ UnknownResponseError  404
│  ├─ UnknownTurnError      404
│  ├─ AuthenticationError   401
│  ├─ NotAllowedError       403
│  ├─ SessionStateError     409
│  ├─ BodyTooLargeError     413
│  └─ TooManyRequestsError  429
├─ BackendError             what runs turns -> HTTP 5xx
│  ├─ BackendStoppedError   503
│  ├─ NoEngineError         503: none is up
│  ├─ TooManyViewersError   503
│  ├─ EngineLostError       the connection to an engine failed, or its reply broke off
│  ├─ UpstreamRefusedError  what another server answered
│  │  └─ EngineBusyError    an engine answered 503
│  ├─ ViewLostError         no rack view: no server, or one that left
│  └─ WireFormatError       an engine or a rack view sent what can't be read
├─ AgentError               an agent's program, in the SDK
│  ├─ ModelCallError        the server refused or failed
│  ├─ TurnLimitError        tools and tools, and no answer
│  ├─ OutputError           an answer that is not what was asked for
│  ├─ SessionBusyError      two runs of one session at a time
│  ├─ BudgetExceededError   nothing is left to spend
│  ├─ RunCancelledError     a run that was cancelled in an earlier life of the program
│  └─ JournalError          what happens can't be taken down, or was another program's
├─ InternalError            our bug
└─ VirtualTimeError         a program did what virtual time can't represent
   ├─ DeadlockError
   ├─ LivelockError
   └─ OutsideTimeError
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from scheduler.ids import ReplicaId

MAX_SHOWN_BODY = 500
"""Bytes of a server's answer that a message shows."""


class AgentRuntimeError(Exception):
    """Base of all errors raised by this package."""


class ConfigError(AgentRuntimeError):
    """A bad option or file, found before anything runs."""


class TraceError(ConfigError):
    """A trace file that can't be read as one.

    Attributes:
        path: The file as the user named it.
        line: Its 1-based line, or None when the file as a whole is at fault.
        field: Where in the line's JSON, e.g. ``requests[3].in``, or None.
    """

    def __init__(
        self, problem: str, *, path: str, line: int | None = None, field: str | None = None
    ) -> None:
        self.path, self.line, self.field = path, line, field
        place = path if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {problem}" if field is None else f"{place}: {field}: {problem}")


class ScriptError(ConfigError):
    """A script of replies that can't be read as one.

    Attributes:
        path: The file as the user named it.
        rule: The number of its ``[[reply]]``, from 1, or None when the file as a whole is at fault.
        field: Where in the rule, e.g. ``calls.0.tool``, or None.
    """

    def __init__(
        self, problem: str, *, path: str, rule: int | None = None, field: str | None = None
    ) -> None:
        self.path, self.rule, self.field = path, rule, field
        place = path if rule is None else f"{path}, reply {rule}"
        super().__init__(f"{place}: {problem}" if field is None else f"{place}: {field}: {problem}")


class RequestError(AgentRuntimeError):
    """The caller of the endpoint asked for something that can't be served.

    Attributes:
        param: The field at fault, as the caller spells it, or None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class InvalidRequestError(RequestError):
    """A body that is not what the endpoint understands."""


class ContextTooLongError(RequestError):
    """The context does not fit the KV cache of one replica, or the limit set for it."""


class UnknownModelError(RequestError):
    """A model that is not served here."""


class UnknownSessionError(RequestError):
    """A session that is not known here, or not any more."""


class UnknownResponseError(RequestError):
    """A stored response that is not known here, or not any more."""


class UnknownTurnError(RequestError):
    """A turn that is not known here, or not any more."""


class AuthenticationError(RequestError):
    """No key, or one that nobody has."""


class NotAllowedError(RequestError):
    """A key that is known, and is not one for this."""


class SessionStateError(RequestError):
    """A session that is not in the state for what is asked of it."""


class BodyTooLargeError(RequestError):
    """A body over the size limit."""


class TooManyRequestsError(RequestError):
    """More at a time than the endpoint takes on.

    Attributes:
        retry_after_s: When to ask again.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class BackendError(AgentRuntimeError):
    """What runs turns could not run this one; another try may succeed."""


class BackendStoppedError(BackendError):
    """The backend is shutting down; its turns are over."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; try again once it is back")


class UpstreamRefusedError(BackendError):
    """Another server answered with an error; it is the caller's to see as it is.

    Attributes:
        status: Of its answer.
        body: Of its answer.
        retry_after_s: When it wants to be asked again, or None.
    """

    def __init__(self, status: int, body: bytes, retry_after_s: float | None = None) -> None:
        self.status, self.body, self.retry_after_s = status, body, retry_after_s
        text = body[:MAX_SHOWN_BODY].decode("utf-8", "replace")
        super().__init__(f"the server answered {status}: {text}")


class NoEngineError(BackendError):
    """No engine is up to run the turn."""

    def __init__(self) -> None:
        super().__init__(
            "no engine is up; try again in a moment, and see the gateway's log for why"
        )


class JournalUnreadableError(BackendError):
    """What a request goes on with may be in a journal, which can't be read for now."""

    def __init__(self) -> None:
        super().__init__(
            "what this goes on with is not known here, and the journal can't be read for now; "
            "try again in a moment, and see the gateway's log for why"
        )


class TooManyViewersError(BackendError):
    """As many watch the rack as may."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} viewers watch the rack, which is the limit; close one, or try again later"
        )


class EngineLostError(BackendError):
    """An engine could not be reached, or broke off while it answered.

    Attributes:
        replica_id: Which one.
        began: Whether bytes of its answer have come.
    """

    def __init__(self, problem: str, *, replica_id: ReplicaId, began: bool) -> None:
        self.replica_id, self.began = replica_id, began
        super().__init__(problem)


class EngineBusyError(UpstreamRefusedError):
    """An engine answered 503: it is overloaded, or on its way down.

    Attributes:
        replica_id: Which one.
    """

    def __init__(self, refused: UpstreamRefusedError, replica_id: ReplicaId) -> None:
        self.replica_id = replica_id
        super().__init__(refused.status, refused.body, refused.retry_after_s)


class ViewLostError(BackendError):
    """A server's rack view could not be reached, or broke off; another try may succeed."""


class WireFormatError(BackendError):
    """An engine or a rack view sent what it should not; nothing of it was taken in."""


class AgentError(AgentRuntimeError):
    """An agent could not do what its program wants."""


class ModelCallError(AgentError):
    """The server refused a model call, or failed.

    Attributes:
        status: Of its answer, or None if there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class TurnLimitError(AgentError):
    """An agent called tools again and again and gave no answer."""


class OutputError(AgentError):
    """An answer that is not what was asked for."""


class SessionBusyError(AgentError):
    """A session was told something while it was at work."""


class BudgetExceededError(AgentError):
    """A session has spent all it may."""


class RunCancelledError(AgentError):
    """A run was cancelled in an earlier life of the program, so it comes to nothing in this one."""


class JournalError(AgentError):
    """A journal can't be written or read, or does not fit the program."""


class InternalError(AgentRuntimeError):
    """A bug of ours: please report it with the message."""


class VirtualTimeError(AgentRuntimeError):
    """A program did something that virtual time can't represent."""


class DeadlockError(VirtualTimeError):
    """Every task is blocked, and no timer is set.

    Attributes:
        waiting: Where the tasks wait, a line each.
    """

    def __init__(self, waiting: Sequence[str]) -> None:
        self.waiting = tuple(waiting)
        places = "".join(f"\n  {place}" for place in waiting)
        super().__init__(
            f"every task waits and no timer is set: nothing can ever happen again{places}"
        )


class LivelockError(VirtualTimeError):
    """The program goes on and on while virtual time stands still."""

    def __init__(self, max_polls: int) -> None:
        super().__init__(
            f"more than {max_polls:,} iterations without time passing: let a loop that polls sleep"
        )


class OutsideTimeError(VirtualTimeError):
    """Something from outside virtual time: a thread, a socket, a request to the network."""


@contextmanager
def told_plainly() -> Iterator[None]:
    """Raise one of our own errors as it is, though a task group wraps it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException | None = group.subgroup(AgentRuntimeError)
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, AgentRuntimeError):
            raise error from group
        raise
