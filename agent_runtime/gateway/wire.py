"""What the bodies of all dialects share: how they are read, and the fields beside the standards."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.client_hints import PanjiuExtension


class Wire(BaseModel):
    """A body, or a part of one."""

    # Unknown fields are accepted, as vLLM does: clients send more than any server knows.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class ServerExtras(Wire):
    """Fields that vLLM and this server take in every dialect."""

    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool | None = False
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    priority: int | None = None
    session_id: str | None = None
    panjiu: PanjiuExtension | None = None


WireT = TypeVar("WireT", bound=BaseModel)


def parse_body(kind: type[WireT], body: bytes) -> WireT:
    """Read a body.

    Raises:
        InvalidRequestError: Not JSON, or a field that is not what it must be; names it.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise invalid_request(error) from error


def invalid_request(error: ValidationError) -> InvalidRequestError:
    """Return what is wrong with a body, by the field that is wrong first."""
    first = error.errors(include_url=False)[0]
    param = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
    ).lstrip(".")
    problem = first["msg"].removeprefix("Value error, ")
    return InvalidRequestError(f"{param}: {problem}" if param else problem, param=param or None)
