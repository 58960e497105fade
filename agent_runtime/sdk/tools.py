"""Functions as tools: their signature is the schema, their docstring the description."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Protocol, overload

import anyio
import anyio.to_thread  # noqa: TID251 - a blocking tool must not stop the others; see Tool.call
from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    ValidationError,
    create_model,
)
from pydantic_core import to_json

from agent_runtime.chat_client import encoded_json
from agent_runtime.errors import ConfigError, JournalError
from agent_runtime.sdk.tool_context import ToolContext


class ToolFailure(Exception):  # noqa: N818 - it is told to the model, not raised at the user
    """What the model is told of a call that gave no result."""


class AnyTool(Protocol):
    """What a model may call, whatever it is made of."""

    @property
    def name(self) -> str:
        """As the model knows it."""
        ...

    @property
    def expected_s(self) -> float | None:
        """How long it usually takes, where somebody knows."""
        ...

    @property
    def encoded(self) -> bytes:
        """Its definition as a request's ``tools`` have it, as JSON."""
        ...

    async def call(self, arguments: str, context: ToolContext | None = None) -> str:
        """Call it; return what the model is told.

        Args:
            arguments: JSON, as the model wrote it.
            context: Of the call.

        Raises:
            ToolFailure: It gave no result; the model is told why.
        """
        ...


class Tool:
    """A function that a model may call.

    Args:
        function: Async, or blocking, which then runs in a thread. A parameter annotated with
            ``ToolContext`` is given by the session and not by the model.
        name: As the model knows it.
        timeout_s: The longest one try may take.
        retries: More tries where it raises or takes too long.
        expected_s: How long it usually takes; the scheduler keeps or drops KV by it.

    Raises:
        ConfigError: A parameter that JSON can't name (positional only, ``*args``, ``**kwargs``) or
            of a type that it has no schema for; or a number below what it may be.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
        expected_s: float | None = None,
    ) -> None:
        self.name = function.__name__ if name is None else name
        self.description = inspect.getdoc(function) or ""
        for told, least in (
            ("timeout_s", timeout_s),
            ("retries", retries),
            ("expected_s", expected_s),
        ):
            if least is not None and not least >= 0:
                raise ConfigError(f"tool {self.name}: {told} must be 0 or more, not {least}")
        self.timeout_s = timeout_s
        self.retries = retries
        self.expected_s = expected_s
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._arguments, self._context_parameter = _arguments_model(self.name, function)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        schema = self._arguments.model_json_schema()
        schema.pop("title", None)
        return schema

    def definition(self) -> dict[str, Any]:
        """Return it as a request's ``tools`` have it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}

    @cached_property
    def encoded(self) -> bytes:
        """Its definition as JSON."""
        return encoded_json(self.definition())

    async def call(self, arguments: str, context: ToolContext | None = None) -> str:
        """Call it; return the result as the model reads it: text as it is, all else as JSON.

        A blocking function runs in a thread, which under virtual time takes no real one.

        Args:
            arguments: JSON, as the model wrote it.
            context: For a function that wants it.

        Raises:
            ToolFailure: Wrong arguments, an exception of the function's, or a time-out.
            JournalError: A session of the function's can't be taken down.
        """
        try:
            values = self._arguments.model_validate_json(arguments or "{}")
        except ValidationError as error:
            raise ToolFailure(f"wrong arguments: {_problems(error)}") from error
        keywords = {name: getattr(values, name) for name in type(values).model_fields}
        if self._context_parameter is not None:
            keywords[self._context_parameter] = context
        cause: Exception
        for num_left in range(self.retries, -1, -1):
            try:
                with anyio.fail_after(self.timeout_s):
                    return _told(await self._run(keywords))
            except TimeoutError as error:
                failure, cause = ToolFailure(f"no result within {self.timeout_s} s"), error
            except JournalError:
                raise  # of a session that it opened: nothing may go on that can't be taken down
            except Exception as error:  # noqa: BLE001 - the model is told
                failure, cause = ToolFailure(f"{type(error).__name__}: {error}"), error
            if not num_left:
                raise failure from cause
        raise AssertionError  # the last try returns or raises

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
    *,
    name: str | None = None,
    timeout_s: float | None = None,
    retries: int = 0,
    expected_s: float | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout_s: float | None = None,
    retries: int = 0,
    expected_s: float | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool; as ``@tool`` or ``@tool(timeout_s=30)``.

    Args:
        function: Async or blocking; its parameters need annotations that pydantic knows.
        name: As the model knows it; by default the function's.
        timeout_s: The longest one try may take; the model is told when it takes longer.
        retries: More tries where it raises or takes too long, before the model is told.
        expected_s: How long it usually takes; the scheduler keeps or drops KV by it.
    """
    made = partial(Tool, name=name, timeout_s=timeout_s, retries=retries, expected_s=expected_s)
    return made if function is None else made(function)


def _told(result: object) -> str:
    return result if isinstance(result, str) else to_json(result).decode()


def _arguments_model(name: str, function: Callable[..., Any]) -> tuple[type[BaseModel], str | None]:
    """Return the model of the arguments, and which parameter wants the context."""
    fields: dict[str, Any] = {}
    context_parameter = None
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        raise ConfigError(
            f"tool {name}: an annotation can't be read: {error}; define it at the module's top"
        ) from error
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"tool {name}: parameter {parameter} has no name that JSON could give; use plain "
                "parameters"
            )
        if parameter.annotation is ToolContext:
            context_parameter = parameter.name
            continue
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (annotation, default)
    config = ConfigDict(extra="forbid")
    try:
        model: type[BaseModel] = create_model(f"{name}_arguments", __config__=config, **fields)
        model.model_json_schema()
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(f"tool {name}: a parameter has no JSON schema: {problem}") from error
    return model, context_parameter


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
