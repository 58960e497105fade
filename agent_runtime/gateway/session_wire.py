"""The bodies of ``/v1/sessions``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_runtime.gateway.whole_number import Whole
from agent_runtime.gateway.wire import one_of_both
from agent_runtime.session_headers import LEAST_URGENT, MOST_URGENT

MAX_TTL_S = 7 * 86_400.0
Priority = Annotated[Whole, Field(ge=MOST_URGENT, le=LEAST_URGENT)]


class _Strict(BaseModel):
    # A field that is misspelt is an error, since it would do nothing.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class NewSession(_Strict):
    """A session to be opened."""

    id: str | None = Field(default=None, description="By default one is made up.")
    ttl_s: float | None = Field(
        default=None, gt=0, le=MAX_TTL_S, description="Known for so long after it was last seen."
    )
    parent_session_id: str | None = Field(
        default=None, min_length=1, description="The session that starts it and waits."
    )
    priority: Priority | None = Field(default=None, description="Smaller is more urgent.")
    deadline_s: float | None = Field(
        default=None, gt=0, description="Seconds from now by which it should be done."
    )


class ForkedSession(_Strict):
    """A session that begins as another one."""

    id: str | None = Field(default=None, description="By default one is made up.")
    ttl_s: float | None = Field(default=None, gt=0, le=MAX_TTL_S)


class SessionHint(_Strict):
    """What is known now of the tool that runs."""

    model_config = ConfigDict(
        json_schema_extra=one_of_both(expected_tool_s="number", progress="number")
    )

    expected_tool_s: float | None = Field(
        default=None, ge=0, description="Seconds it takes in all, from the end of the turn."
    )
    progress: float | None = Field(
        default=None, gt=0, le=1, description="The share of its work that is done."
    )

    @model_validator(mode="after")
    def _one_estimate(self) -> Self:
        if (self.expected_tool_s is None) == (self.progress is None):
            raise ValueError("give expected_tool_s or progress: either says when it ends")
        return self
