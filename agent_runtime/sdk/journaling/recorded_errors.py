"""Errors that outlive the process: taken down by class and message, raised again as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from agent_runtime.errors import AgentError, ModelCallError
from agent_runtime.sdk.journaling.texts import as_text


@dataclass(frozen=True, slots=True)
class RecordedError:
    """An error of an earlier life.

    Attributes:
        name: Of its class.
        message: What it said.
        status: Of the server's answer, for a ``ModelCallError``.
    """

    name: str
    message: str
    status: int | None = None

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Take one down."""
        status = error.status if isinstance(error, ModelCallError) else None
        return cls(type(error).__name__, as_text(str(error)), status)

    def error(self) -> AgentError:
        """Return one like it: of the same class, or a ``ModelCallError`` if that is not ours."""
        kind = _agent_errors().get(self.name)
        if kind is ModelCallError:
            return ModelCallError(self.message, status=self.status)
        if kind is not None:
            return kind(self.message)
        return ModelCallError(f"{self.name}: {self.message}")


def _agent_errors() -> dict[str, type[AgentError]]:
    """Return those that are made of a message, by name."""
    return {kind.__name__: kind for kind in AgentError.__subclasses__()}
