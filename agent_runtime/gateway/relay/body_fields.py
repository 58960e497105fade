"""A request's members, read from its body; of a chat's messages, nothing yet.

An agent sends its whole conversation with every turn. To read all of it again took most of what a
long one's turn cost here, though its session had heard it but for the end (see ``UnreadChat``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent_runtime.errors import InvalidRequestError
from agent_runtime.loose_json import MAX_DEPTH, MAX_ITEMS, has_more_brackets, shape_problem
from agent_runtime.undecodable import UNDECODABLE

MAX_MEMBERS = 10_000
"""Of a chat request, each of which is read by itself; APIs have less than a hundred."""

_MESSAGES, _TOOLS = "messages", "tools"
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode


class ChatFields(dict[str, Any]):
    """The members of a chat request without its ``messages``.

    Args:
        members: As they were sent.

    Attributes:
        messages: As they were sent; nothing where there are none.
        tools: The tool definitions, the same.

    Raises:
        InvalidRequestError: One of the others can't be read.
    """

    __slots__ = ("messages", "tools")

    def __init__(self, members: dict[str, msgspec.Raw]) -> None:
        messages, tools = members.pop(_MESSAGES, None), members.get(_TOOLS)
        self.messages = b"" if messages is None else bytes(messages)
        self.tools = b"" if tools is None else bytes(tools)
        super().__init__((name, read_member(bytes(value))) for name, value in members.items())

    def with_messages(self) -> dict[str, Any]:
        """Return all members.

        Raises:
            InvalidRequestError: The messages can't be read.
        """
        if not self.messages:
            return dict(self)
        return {**self, _MESSAGES: read_member(self.messages)}


def read_fields(body: bytes) -> dict[str, Any]:
    """Read a body.

    Raises:
        InvalidRequestError: Not a JSON object.
    """
    try:
        fields = _decode(body)
    except UNDECODABLE as error:
        raise _not_json(error) from error
    if not isinstance(fields, dict):
        raise _no_object()
    _check_shape(body, fields)
    return fields


def read_chat_fields(body: bytes) -> ChatFields:
    """Read a chat request's body but its messages, which may be no text yet.

    Raises:
        InvalidRequestError: Not a JSON object, or one of more than ``MAX_MEMBERS``.
    """
    try:
        members = _split(body)
    except msgspec.ValidationError as error:
        raise _no_object() from error
    except UNDECODABLE as error:
        raise _not_json(error) from error
    if len(members) > MAX_MEMBERS:
        raise InvalidRequestError(f"the body has more than {MAX_MEMBERS:,} members")
    return ChatFields(members)


def read_member(data: bytes) -> Any:  # noqa: ANN401 - JSON
    """Read a member, or a part of one.

    Raises:
        InvalidRequestError: It is not JSON after all: no text, a number out of range.
    """
    try:
        value = _decode(data)
    except UNDECODABLE as error:
        raise _not_json(error) from error
    _check_shape(data, [value])
    return value


def _check_shape(data: bytes, value: object) -> None:
    if not has_more_brackets(data, MAX_DEPTH - 1):  # of a member, the body's is not among them
        return
    problem = shape_problem(value, MAX_DEPTH, MAX_ITEMS)
    if problem is not None:
        raise InvalidRequestError(f"the body {problem}; no engine needs so many")


def _not_json(error: Exception) -> InvalidRequestError:
    return InvalidRequestError(f"the body is not JSON: {error}")


def _no_object() -> InvalidRequestError:
    return InvalidRequestError("the body must be a JSON object")
