"""What clients know of their sessions and the scheduler can use, whichever way they say it.

In order: the body's ``panjiu`` object, the headers ``X-Panjiu-*``, then what the dialects have of
their own (vLLM's ``priority``, cache lifetimes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.whole_number import Whole
from agent_runtime.session_headers import HINT_PREFIX, LEAST_URGENT, MOST_URGENT

MAX_LEASE_S = 86_400.0
VLLM_PRIORITY = "x-vllm-priority"
PARENT_HEADERS = ("x-parent-session-id", "x-codex-parent-thread-id")
"""OpenCode's and Codex's."""


class PanjiuExtension(BaseModel):
    """The extension object; a field that is misspelt is an error, since it would do nothing."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "anyOf": [
                {"properties": {"progress": {"type": "null"}}},
                {
                    "properties": {"expected_tool_s": {"type": "number"}},
                    "required": ["expected_tool_s"],
                },
            ]
        },
    )

    expected_tool_s: float | None = Field(
        default=None, ge=0, description="Seconds that what runs after this turn takes in all."
    )
    progress: float | None = Field(
        default=None, ge=0, lt=1, description="The share of them that has passed already."
    )
    parent_session_id: str | None = Field(
        default=None, min_length=1, description="The session that started this one and waits."
    )
    deadline_s: float | None = Field(
        default=None, gt=0, description="Seconds from now by which the session should be done."
    )
    priority: Whole | None = Field(
        default=None, ge=MOST_URGENT, le=LEAST_URGENT, description="Smaller is more urgent."
    )
    lease_s: float | None = Field(
        default=None,
        ge=0,
        le=MAX_LEASE_S,
        description="Seconds the KV should be kept after the turn, within a quota.",
    )

    @model_validator(mode="after")
    def _progress_of_something(self) -> Self:
        if self.progress is not None and self.expected_tool_s is None:
            raise ValueError("progress says nothing without expected_tool_s; give both")
        return self


_NOTHING = PanjiuExtension()
_BY_HEADER = {HINT_PREFIX + name.replace("_", "-"): name for name in PanjiuExtension.model_fields}


class ClientHints(msgspec.Struct, frozen=True):
    """What a request says beside what it asks.

    Attributes:
        expected_s: How long the gap after the turn lasts.
        lease_s: How long its KV should be kept; None if nothing was said.
        priority: Smaller is more urgent; None if nothing was said.
        deadline_s: Seconds from now.
        parent_session_id: As the caller spells it.
    """

    expected_s: float | None = None
    lease_s: float | None = None
    priority: int | None = None
    deadline_s: float | None = None
    parent_session_id: str | None = None


def client_hints(
    headers: Mapping[str, str],
    extension: PanjiuExtension | None,
    *,
    priority: int | None = None,
    lease_s: float | None = None,
) -> ClientHints:
    """Put together what a request says.

    Args:
        headers: Of the request, looked up in lower case.
        extension: The body's ``panjiu``.
        priority: The body's own, vLLM's.
        lease_s: What the dialect's cache fields come to.

    Raises:
        InvalidRequestError: A header that is not what it must be; names it.
    """
    said = _from_headers(headers)
    if extension is not None:
        said = said.model_copy(update=extension.model_dump(exclude_none=True))
    if priority is None:
        priority = _vllm_priority(headers)
    if priority is not None:
        priority = max(MOST_URGENT, min(priority, LEAST_URGENT))
    parent = said.parent_session_id
    if parent is None:
        parent = next((headers[name] for name in PARENT_HEADERS if headers.get(name)), None)
    expected_s = said.expected_tool_s
    if expected_s is not None and said.progress is not None:
        expected_s *= 1 - said.progress
    return ClientHints(
        expected_s=expected_s,
        lease_s=lease_s if said.lease_s is None else said.lease_s,
        priority=priority if said.priority is None else said.priority,
        deadline_s=said.deadline_s,
        parent_session_id=parent,
    )


def _from_headers(headers: Mapping[str, str]) -> PanjiuExtension:
    given: dict[str, Any] = {}
    for name, field in _BY_HEADER.items():
        value = headers.get(name)
        if value is not None:
            given[field] = value
    if not given:
        return _NOTHING
    try:
        return PanjiuExtension.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "progress"
        header = HINT_PREFIX + name.replace("_", "-")
        problem = first["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(f"header {header}: {problem}", param=header) from error


def _vllm_priority(headers: Mapping[str, str]) -> int | None:
    value = headers.get(VLLM_PRIORITY)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError as error:
        raise InvalidRequestError(
            f"header {VLLM_PRIORITY}: expected a whole number, got {value!r}", param=VLLM_PRIORITY
        ) from error
