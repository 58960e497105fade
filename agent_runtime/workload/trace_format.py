"""Recorded sessions as data: what one must hold, and how one that does not is reported.

Three forms differ in little: kv-cache-tester's own files and those that AIPerf reads as Weka traces
(SemiAnalysis' cc-traces-weka) list ``hash_ids``, ours have them run-length coded as ``hash_runs``.
In Weka traces the calls of a sub-agent are timed from the session's beginning, and its ``t`` is
when it was spawned; in the others they are timed from its own, and its ``t`` is when it ended.

Sources: callanjfox/kv-cache-tester, traces; AIPerf 0.13.0, loader ``weka_trace``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent_runtime.errors import TraceError
from agent_runtime.workload.block_id_runs import BlockIdRun, joined, num_blocks, runs_of
from agent_runtime.workload.trace_lines import wrong_value

_TAGS = {"n", "s", "subagent"}
Seconds = Annotated[float, Field(ge=0, le=1e9)]
TokenCount = Annotated[int, Field(ge=0, le=1 << 31)]
LocalId = Annotated[int, Field(ge=0, lt=1 << 32)]


class _Recorded(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class RecordedCall(_Recorded):
    """A model call; ``t`` is when it began, ``api_time`` how long the original server took."""

    type: Literal["n", "s"]
    t: Seconds
    isl: Annotated[TokenCount, Field(ge=1, alias="in")]
    out: TokenCount
    think_time: Seconds | None = None
    api_time: Seconds | None = None
    stop: str | None = None
    hash_runs: list[tuple[LocalId, LocalId]] | None = None
    hash_ids: list[LocalId] | None = None

    @cached_property
    def runs(self) -> tuple[BlockIdRun, ...]:
        """The ids of the prompt's blocks, canonical; of its last, unfilled block perhaps, too."""
        if self.hash_runs is not None:
            return joined(self.hash_runs)
        return runs_of(self.hash_ids or ())


class RecordedSubAgent(_Recorded):
    """A nested agent; ``duration_ms`` is null where nobody waited for it to end."""

    type: Literal["subagent"]
    t: Seconds
    duration_ms: Annotated[float, Field(ge=0, le=1e12)] | None = None
    agent_id: str = "agent"
    tool_tokens: TokenCount = 0
    system_tokens: TokenCount = 0
    requests: list[Entry]

    @property
    def span_s(self) -> tuple[float, float]:
        """When it began and ended, in the time of the agent that started it.

        The file does not say which form it has, its first call does: timed from the sub-agent's own
        beginning it is at 0 and ``t``, the end, far behind; timed from the session's it is at
        ``t``, the beginning, give or take that some captures round to seconds.
        """
        calls = [entry for entry in self.requests if isinstance(entry, RecordedCall)]
        first_s = calls[0].t if calls else 0.0
        last_s = max((call.t + (call.api_time or 0.0) for call in calls), default=first_s)
        is_absolute = first_s >= self.t / 2
        duration_s = last_s - (first_s if is_absolute else 0.0)
        if self.duration_ms is not None:
            duration_s = self.duration_ms / 1000
        if is_absolute:
            return self.t, self.t + duration_s
        return self.t - duration_s, self.t


Entry = Annotated[RecordedCall | RecordedSubAgent, Field(discriminator="type")]


class RecordedSession(_Recorded):
    """A line."""

    id: str = Field(min_length=1)
    block_size: Annotated[int, Field(ge=1, le=1 << 20)]
    hash_id_scope: Literal["local"] = "local"
    tool_tokens: TokenCount = 0
    system_tokens: TokenCount = 0
    requests: list[Entry]

    @model_validator(mode="after")
    def _check_calls(self) -> Self:
        _check_entries(self.requests, self.block_size, "requests")
        return self


RecordedSubAgent.model_rebuild()
RecordedSession.model_rebuild()


class _EntryError(ValueError):
    """A problem that concerns several fields at once, with its place."""

    def __init__(self, place: str, problem: str) -> None:
        self.place = place
        super().__init__(problem)


def parse_session(line: bytes, *, path: str, line_number: int | None) -> RecordedSession:
    """Read one document.

    Raises:
        TraceError: Names the file, the line and the field, and what was expected there.
    """
    try:
        return RecordedSession.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, _EntryError):
            raise TraceError(str(cause), path=path, line=line_number, field=cause.place) from error
        place = _place(first["loc"])
        raise wrong_value(error, path=path, line=line_number, place=place) from error


def _check_entries(
    entries: list[RecordedCall | RecordedSubAgent], block_size: int, place: str
) -> None:
    if not any(isinstance(entry, RecordedCall) for entry in entries):
        raise _EntryError(place, "expected at least one model call (type n or s)")
    for index, entry in enumerate(entries):
        here = f"{place}[{index}]"
        if isinstance(entry, RecordedSubAgent):
            _check_entries(entry.requests, block_size, f"{here}.requests")
            continue
        _check_runs(entry, block_size, here)


def _check_runs(call: RecordedCall, block_size: int, here: str) -> None:
    if (call.hash_runs is None) == (call.hash_ids is None):
        problem = "expected hash_runs or hash_ids, found " + (
            "neither" if call.hash_runs is None else "both"
        )
        raise _EntryError(here, problem)
    full = call.isl // block_size
    if call.hash_ids is not None:
        # Captures may lack the ids of a prompt's end; too many are a sign of another block size.
        started = -(-call.isl // block_size)
        if len(call.hash_ids) > started:
            raise _EntryError(
                f"{here}.hash_ids",
                f"expected at most {started} block ids for {call.isl} tokens in blocks of "
                f"{block_size}, found {len(call.hash_ids)}",
            )
        return
    runs = call.hash_runs or []
    if any(last < first for first, last in runs):
        raise _EntryError(f"{here}.hash_runs", "expected [first, last] with first <= last")
    if num_blocks(runs) != full:
        raise _EntryError(
            f"{here}.hash_runs",
            f"expected {full} block ids for {call.isl} tokens in blocks of {block_size}, found "
            f"{num_blocks(runs)}",
        )


def _place(location: tuple[int | str, ...]) -> str:
    """Spell pydantic's location as a path in the JSON, e.g. ``requests[3].in``."""
    place, previous = "", None
    for part in location:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not (part in _TAGS and isinstance(previous, int)):
            place += f".{part}" if place else part
        previous = part
    return place
