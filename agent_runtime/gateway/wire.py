"""What the bodies of all dialects share: how they are read, and the fields beside the standards."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.client_hints import PanjiuExtension
from agent_runtime.gateway.whole_number import Whole
from agent_runtime.loose_json import MAX_DEPTH, MAX_ITEMS, shape_problem
from agent_runtime.undecodable import UNDECODABLE

StopString: TypeAlias = Annotated[str, Field(min_length=1)]
"""An empty one would end every answer before its first token."""


class Wire(BaseModel):
    """A body, or a part of one."""

    # Unknown fields are accepted, as vLLM does: clients send more than any server knows.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class ServerExtras(Wire):
    """Fields that vLLM and this server take in every dialect."""

    min_tokens: Whole | None = Field(default=None, ge=0)
    ignore_eos: bool | None = False
    seed: Whole | None = Field(default=None, ge=-(2**63), lt=2**63)
    priority: Whole | None = None
    session_id: str | None = None
    cache_salt: str | None = Field(
        default=None, min_length=1, description="Prompts with other salts share no KV with it."
    )
    panjiu: PanjiuExtension | None = None


def one_of_both(**kinds: str) -> dict[str, Any]:
    """Return the JSON schema of two fields of which a body has one, by their JSON types."""
    given = [
        {"properties": {name: {"type": kind}}, "required": [name]} for name, kind in kinds.items()
    ]
    return {"oneOf": given}


_FORM = re.compile(r"(str$|list\[)")
"""What pydantic puts into places for the members of a union."""

WireT = TypeVar("WireT", bound=BaseModel)


def parse_body(kind: type[WireT], body: bytes) -> WireT:
    """Read a body.

    Raises:
        InvalidRequestError: Not JSON, a field that is not what it must be, which it names, or more
            than ``MAX_ITEMS``.
    """
    _check_shape(body)
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid_request(error) from error


def _check_shape(body: bytes) -> None:
    if len(body) <= MAX_ITEMS or body.count(b"[") + body.count(b"{") <= MAX_ITEMS:
        return  # nearly always; brackets within texts count here, and not below
    with suppress(*UNDECODABLE):  # it will be told better
        problem = shape_problem(msgspec.json.decode(body), MAX_DEPTH, MAX_ITEMS)
        if problem is not None:
            raise InvalidRequestError(f"the body {problem}")


def invalid_request(error: ValidationError) -> InvalidRequestError:
    """Return what is wrong with a body, by the field that is wrong first."""
    found = [
        (_place(one["loc"]), str(one["msg"]))
        for one in error.errors(include_url=False, include_input=False)
    ]
    # A field of several forms has an error for each: the one that got furthest says most.
    within = [one for one in found if one[0].startswith(found[0][0])]
    param = max((place for place, _ in within), key=len)
    problems = dict.fromkeys(
        text.removeprefix("Value error, ") for place, text in within if place == param
    )
    problem = ", or: ".join(problems)
    return InvalidRequestError(f"{param}: {problem}" if param else problem, param=param or None)


def _place(location: tuple[int | str, ...]) -> str:
    """Return a place as the caller spells it, without the names of a field's forms."""
    parts = [part for part in location if isinstance(part, int) or not _FORM.match(part)]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(
        "."
    )
