"""A journal's jobs as the script in ``batch.lua`` takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent_runtime.sdk.journaling.recorded_errors import RecordedError
from agent_runtime.sdk.journaling.store import (
    AddMessage,
    BeginStep,
    ClaimSession,
    CloseSession,
    Job,
    LeaveSession,
    MarkStep,
    OpenSession,
    ReleaseSession,
)
from agent_runtime.sdk.journaling.texts import as_json, as_text


def command(job: Job[Any]) -> list[str]:
    """Return the name of a job's command and its arguments.

    Raises:
        TypeError: It is no job that writes.
    """
    match job:
        case OpenSession():
            return _open(job)
        case ClaimSession():
            return ["claim", as_text(job.session_id)]
        case ReleaseSession():
            return ["release", as_text(job.session_id)]
        case CloseSession() | LeaveSession():
            return _leaving(job)
        case BeginStep() | MarkStep() | AddMessage():
            return _step(job)
        case _:
            raise TypeError(f"no job that writes: {job!r}")


def _leaving(job: CloseSession | LeaveSession) -> list[str]:
    session = str(job.session)
    if isinstance(job, LeaveSession):
        return ["leave", session]
    return (
        ["reopen", session] if job.at_epoch_s is None else ["close", session, repr(job.at_epoch_s)]
    )


def _step(job: BeginStep | MarkStep | AddMessage) -> list[str]:
    place = [str(job.session), str(job.step.number if isinstance(job, BeginStep) else job.number)]
    place.append(repr(job.at_epoch_s))
    match job:
        case BeginStep():
            return ["begin", *place, *_begun(job)]
        case MarkStep():
            return ["mark", *place, job.state.value, *_failure(job.error)]
        case AddMessage():
            return ["message", *place, *_message(job)]


def _failure(error: RecordedError | None) -> list[str]:
    if error is None:
        return ["", "", ""]
    return [error.name, error.message, "" if error.status is None else str(error.status)]


def _open(job: OpenSession) -> list[str]:
    opened = job.opened
    session_id, place = as_text(opened.session_id), as_text(opened.place)
    fields = {
        "session_id": session_id,
        "place": place,
        "opening": str(job.opening),
        "agent": as_text(opened.agent),
        "model": as_text(opened.model),
        "num_kept": str(opened.num_kept),
        "added": as_json(list(opened.added)),
        "opened_epoch_s": repr(job.at_epoch_s),
        "last_epoch_s": repr(job.at_epoch_s),
    }
    parent = ""
    if job.parent is not None and opened.parent_id is not None:
        key, num_steps = job.parent
        parent = fields["parent"] = str(key)
        fields["parent_id"] = as_text(opened.parent_id)
        if opened.is_fork:
            fields["forked_after"] = str(num_steps)
    return ["open", session_id, str(job.opening), place, parent, *_flat(fields)]


def _begun(job: BeginStep) -> list[str]:
    step = job.step
    return _flat(
        {
            "kind": step.kind,
            "told": step.told,
            "members": step.members,
            "num_kept": str(step.num_kept),
            "added": step.added,
            "state": step.state.value,
            "begun_epoch_s": repr(job.at_epoch_s),
        }
    )


def _message(job: AddMessage) -> list[str]:
    """Return the message as it is kept, and its tokens."""
    tokens: Sequence[int] = ()
    if job.usage is not None:
        tokens = (job.usage.prompt_tokens, job.usage.cached_tokens, job.usage.output_tokens)
    # The message is JSON already, and comes back as it was.
    record = (
        f'{{"at_epoch_s":{job.at_epoch_s!r},"tokens":{json.dumps(list(tokens) or None)},'
        f'"message":{job.message}}}'
    )
    return [record, *([str(number) for number in tokens] or ["", "", ""])]


def _flat(fields: dict[str, str]) -> list[str]:
    return [word for field in fields.items() for word in field]
