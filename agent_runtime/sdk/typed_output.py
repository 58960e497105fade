"""Answers that are pydantic models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agent_runtime.errors import OutputError

Model = TypeVar("Model", bound=BaseModel)
SHOWN = 200


def format_of(output: type[BaseModel]) -> dict[str, Any]:
    """Return the ``response_format`` that asks for a model."""
    schema = {"name": output.__name__, "schema": output.model_json_schema(), "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def parser_of(output: type[Model]) -> Callable[[str], Model]:
    """Return what makes the model of an answer, and raises ``OutputError`` where that can't be."""

    def parse(answer: str) -> Model:
        try:
            return output.model_validate_json(answer)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise OutputError(
                f"the answer is no {output.__name__}: {problem}; it begins {answer[:SHOWN]!r}"
            ) from error

    return parse
