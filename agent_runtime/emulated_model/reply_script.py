"""A script of replies: a TOML file of rules, the first that fits a request is what is said."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from agent_runtime.errors import ScriptError
from agent_runtime.json_sampling.json_values import Json

PLACEHOLDERS = ("session", "turn", "step", "last")


def _known_placeholders(text: str) -> str:
    template = Template(text)
    if not template.is_valid():
        raise ValueError("write a dollar sign as $$")
    unknown = [name for name in template.get_identifiers() if name not in PLACEHOLDERS]
    if unknown:
        known = ", ".join(f"${name}" for name in PLACEHOLDERS)
        raise ValueError(f"there is no ${unknown[0]}; there are {known}")
    return text


TemplateText = Annotated[str, AfterValidator(_known_placeholders)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ScriptedCall(_Entry):
    """A tool call; without arguments they are drawn from the tool's schema."""

    tool: str = Field(min_length=1)
    arguments: dict[str, Any] | None = None

    @field_validator("arguments")
    @classmethod
    def _placeholders(cls, arguments: dict[str, Any] | None) -> dict[str, Any] | None:
        _check_leaves(arguments)
        return arguments


class Rule(_Entry):
    """When a reply is given, and what it is. Every condition that is given must hold.

    Attributes:
        session: Glob of session ids.
        role: Who spoke last.
        contains: Text in the last message.
        matches: Regular expression found in the last message.
        tool: The last message is the result of a call of this tool (a glob).
        turn: Which turn of the assistant's this is, from 1.
        step: Tool steps since the user's last message, from 0.
        text: What is said.
        num_tokens: Say so many tokens of made-up text.
        json_value: Say this as JSON (``json`` in the file).
        calls: Call these tools, after the text if there is one.
    """

    session: str | None = None
    role: Literal["system", "developer", "user", "assistant", "tool", "function"] | None = None
    contains: str | None = None
    matches: re.Pattern[str] | None = None
    tool: str | None = None
    turn: int | None = Field(default=None, ge=1)
    step: int | None = Field(default=None, ge=0)
    text: TemplateText | None = None
    num_tokens: int | None = Field(default=None, ge=1)
    json_value: Json = Field(default=None, alias="json")
    calls: tuple[ScriptedCall, ...] = Field(default=(), strict=False)

    @field_validator("matches", mode="before")
    @classmethod
    def _compiled(cls, pattern: object) -> object:
        try:
            return re.compile(pattern) if isinstance(pattern, str) else pattern
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error

    @field_validator("json_value")
    @classmethod
    def _placeholders(cls, value: Json) -> Json:
        _check_leaves(value)
        return value

    @model_validator(mode="after")
    def _one_answer(self) -> Rule:
        given = [self.text is not None, self.num_tokens is not None, self.json_value is not None]
        if sum(given) > 1:
            raise ValueError("give one of text, num_tokens and json")
        if not any(given) and not self.calls:
            raise ValueError("says nothing: give text, num_tokens, json or calls")
        if self.json_value is not None and self.calls:
            raise ValueError("json and calls don't go together")
        return self


class ReplyScript(_Entry):
    """The whole file."""

    reply: tuple[Rule, ...] = Field(min_length=1, strict=False)


def read_reply_script(path: str) -> ReplyScript:
    """Read a script.

    Raises:
        ScriptError: It can't be read; names the file, the rule and the field.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ScriptError(f"can't be read: {error.strerror}", path=path) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScriptError(f"not TOML: {error}", path=path) from error
    try:
        return ReplyScript.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        match first["loc"]:
            case ("reply", int(index), *where):
                field = ".".join(str(part) for part in where) or None
                raise ScriptError(message, path=path, rule=index + 1, field=field) from error
            case where:
                field = ".".join(str(part) for part in where) or None
                raise ScriptError(message, path=path, field=field) from error


def filled_in(value: Json, values: dict[str, str]) -> Json:
    """Return a template, or JSON with templates as its strings, with placeholders replaced."""
    if isinstance(value, str):
        return Template(value).substitute(values)
    if isinstance(value, list):
        return [filled_in(item, values) for item in value]
    if isinstance(value, dict):
        return {name: filled_in(member, values) for name, member in value.items()}
    return value


def _check_leaves(value: object) -> None:
    if isinstance(value, str):
        _known_placeholders(value)
    elif isinstance(value, list):
        for item in value:
            _check_leaves(item)
    elif isinstance(value, dict):
        for name, member in value.items():
            try:
                _check_leaves(member)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"JSON has no {type(value).__name__}; write it as text")
    elif isinstance(value, float) and value - value != 0:
        raise ValueError("JSON has no nan or inf")
