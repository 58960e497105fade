"""Functions as tools: their signature is the schema, their docstring the description."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from typing import Any, overload

import anyio
import anyio.to_thread  # noqa: TID251 - a blocking tool must not stop the others; see Tool.call
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import to_jsonable_python

from agent_runtime.errors import ConfigError


class ToolFailure(Exception):  # noqa: N818 - it is told to the model, not raised at the user
    """What the model is told of a call that gave no result."""


class Tool:
    """A function that a model may call.

    Args:
        function: Async, or blocking, which then runs in a thread.
        name: As the model knows it.
        timeout_s: The longest it may take.

    Raises:
        ConfigError: A parameter that JSON can't name: positional only, ``*args``, ``**kwargs``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.name = function.__name__ if name is None else name
        self.description = inspect.getdoc(function) or ""
        self.timeout_s = timeout_s
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._arguments = _arguments_model(self.name, function)

    def definition(self) -> dict[str, Any]:
        """Return it as a request's ``tools`` have it."""
        schema = self._arguments.model_json_schema()
        schema.pop("title", None)
        function = {"name": self.name, "description": self.description, "parameters": schema}
        return {"type": "function", "function": function}

    async def call(self, arguments: str) -> str:
        """Call it; return the result as the model reads it: text as it is, all else as JSON.

        A blocking function runs in a thread, which under virtual time takes no real one.

        Args:
            arguments: JSON, as the model wrote it.

        Raises:
            ToolFailure: Wrong arguments, an exception of the function's, or a time-out.
        """
        try:
            values = self._arguments.model_validate_json(arguments or "{}")
        except ValidationError as error:
            raise ToolFailure(f"wrong arguments: {_problems(error)}") from error
        keywords = {name: getattr(values, name) for name in type(values).model_fields}
        try:
            with anyio.fail_after(self.timeout_s):
                result = await self._run(keywords)
        except TimeoutError as error:
            raise ToolFailure(f"no result within {self.timeout_s} s") from error
        except Exception as error:
            raise ToolFailure(f"{type(error).__name__}: {error}") from error
        return result if isinstance(result, str) else json.dumps(to_jsonable_python(result))

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the function's own
        """Call the function itself, as without ``@tool``."""
        result = self._function(*args, **kwargs)
        return await result if self._is_async else result

    async def _run(self, keywords: dict[str, Any]) -> Any:  # noqa: ANN401 - the function's own
        if self._is_async:
            return await self._function(**keywords)
        return await anyio.to_thread.run_sync(  # noqa: TID251 - virtual time runs it inline
            partial(self._function, **keywords), abandon_on_cancel=True
        )


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...


@overload
def tool(
    *, name: str | None = None, timeout_s: float | None = None
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout_s: float | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool; as ``@tool`` or ``@tool(timeout_s=30)``.

    Args:
        function: Async or blocking; its parameters need annotations that pydantic knows.
        name: As the model knows it; by default the function's.
        timeout_s: The longest it may take; the model is told when it takes longer.
    """
    if function is not None:
        return Tool(function, name=name, timeout_s=timeout_s)
    return lambda decorated: Tool(decorated, name=name, timeout_s=timeout_s)


def _arguments_model(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    signature = inspect.signature(function, eval_str=True)
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"tool {name}: parameter {parameter} has no name that JSON could give; use plain "
                "parameters"
            )
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (annotation, default)
    return create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
