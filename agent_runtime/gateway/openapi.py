"""``GET /openapi.json``: the routes and bodies there are, from the models that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

REF = "#/components/schemas/{model}"
ERROR_STATUSES = (400, 401, 404, 405, 409, 413, 429, 502, 503)


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_TEXT, _TEXT_OR_NULL = {"type": "string"}, {"type": ["string", "null"]}
ERROR_SHAPES = {
    "OpenAIError": _object(
        error=_object(message=_TEXT, type=_TEXT, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL)
    ),
    "AnthropicError": _object(type={"const": "error"}, error=_object(type=_TEXT, message=_TEXT)),
}
"""The two shapes of ``HttpError``."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be done on a route.

    Attributes:
        method: In lower case.
        path: With parameters in braces.
        summary: One line.
        body: What it takes, or None.
        body_required: Whether it has to be sent.
        status: When it goes well.
        streams: Whether it may answer with server-sent events.
        guarded: Whether it takes an API key where there are any.
        media_types: Of what it answers, events aside.
        more_statuses: Of errors that others don't have.
    """

    method: str
    path: str
    summary: str
    body: type[BaseModel] | None = None
    body_required: bool = True
    status: int = 200
    streams: bool = False
    guarded: bool = True
    media_types: tuple[str, ...] = ("application/json",)
    more_statuses: tuple[int, ...] = ()


class OpenApi:
    """The document and its route.

    Args:
        operations: What there is.
        version: Of the server.
    """

    def __init__(self, operations: Sequence[Operation], version: str) -> None:
        self._operations, self._version = operations, version

    @cached_property
    def document(self) -> dict[str, Any]:
        """What it says; made when somebody asks, as it takes some milliseconds."""
        bodies = list(dict.fromkeys(one.body for one in self._operations if one.body is not None))
        _, schemas = models_json_schema([(kind, "validation") for kind in bodies], ref_template=REF)
        paths: dict[str, dict[str, Any]] = {}
        for operation in self._operations:
            path = operation.path.replace(":path", "")
            paths.setdefault(path, {})[operation.method] = _described(operation)
        return {
            "openapi": "3.1.0",
            "info": {"title": "Panjiu", "version": self._version},
            "paths": paths,
            "components": {
                "schemas": schemas.get("$defs", {}) | ERROR_SHAPES,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
        }

    async def answer(self, _: Request) -> Response:
        """Answer one request."""
        return JSONResponse(self.document)


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": operation.summary, "responses": _responses(operation)}
    if operation.guarded:
        described["security"] = [{}, {"bearer": []}, {"apiKey": []}]
    names = [part[1:-1] for part in operation.path.replace(":path", "").split("/") if "{" in part]
    if names:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if operation.body is not None:
        schema = {"$ref": REF.format(model=operation.body.__name__)}
        content = {"application/json": {"schema": schema}}
        described["requestBody"] = {
            "required": operation.body_required,
            "content": content,
        }
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.status != HTTPStatus.NO_CONTENT:
        kinds = list(operation.media_types)
        if operation.streams:
            kinds.append("text/event-stream")
        good["content"] = {kind: {} for kind in kinds}
    responses = {str(operation.status): good}
    shape = "AnthropicError" if operation.path.startswith("/v1/messages") else "OpenAIError"
    content = {"application/json": {"schema": {"$ref": REF.format(model=shape)}}}
    for status in (*ERROR_STATUSES, *operation.more_statuses) if operation.guarded else ():
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    return responses
