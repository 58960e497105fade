"""The recorded lines as data: what a line must hold, and how one that does not is reported."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent_runtime.errors import TraceError
from agent_runtime.workload.block_id_runs import BlockIdRun, num_blocks
from agent_runtime.workload.trace_lines import shown

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
    hash_runs: list[tuple[LocalId, LocalId]]


class RecordedSubAgent(_Recorded):
    """A nested agent; ``t`` is when it ended."""

    type: Literal["subagent"]
    t: Seconds
    duration_ms: Annotated[float, Field(ge=0, le=1e12)]
    agent_id: str = "agent"
    tool_tokens: TokenCount = 0
    system_tokens: TokenCount = 0
    requests: list[Entry]


Entry = Annotated[RecordedCall | RecordedSubAgent, Field(discriminator="type")]


class RecordedSession(_Recorded):
    """A line."""

    id: str = Field(min_length=1)
    block_size: Annotated[int, Field(ge=1, le=1 << 20)]
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


def parse_session(line: bytes, *, path: str, line_number: int) -> RecordedSession:
    """Read one line.

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
        found = (
            ""
            if first["type"] in {"missing", "json_invalid"}
            else f", found {shown(first['input'])}"
        )
        raise TraceError(
            f"{first['msg']}{found}", path=path, line=line_number, field=place or None
        ) from error


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
        runs: list[BlockIdRun] = entry.hash_runs
        if any(last < first for first, last in runs):
            raise _EntryError(f"{here}.hash_runs", "expected [first, last] with first <= last")
        if num_blocks(runs) != entry.isl // block_size:
            raise _EntryError(
                f"{here}.hash_runs",
                f"expected {entry.isl // block_size} block ids for {entry.isl} tokens in blocks "
                f"of {block_size}, found {num_blocks(runs)}",
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
