"""The seam to engines over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from agent_runtime.errors import ConfigError

PROBE_S = 5.0


class EngineUnreachableError(Exception):
    """No answer, or one that broke off.

    Attributes:
        refused: Whether nobody listens there: the engine is gone beyond doubt.
    """

    def __init__(self, problem: str, *, refused: bool) -> None:
        self.refused = refused
        super().__init__(problem)


class EngineReply(Protocol):
    """An answer under way; its body is read from the socket only as it is asked for."""

    @property
    def status(self) -> int:
        """HTTP's."""
        ...

    @property
    def retry_after(self) -> str:
        """The header, or nothing."""
        ...

    @property
    def content_type(self) -> str:
        """The header."""
        ...

    async def next_bytes(self) -> bytes:
        """Return what has come since, at least a byte; nothing at the end.

        Raises:
            EngineUnreachableError: It broke off.
        """
        ...

    @property
    def is_at_end(self) -> bool:
        """Whether all has come."""
        ...

    def close(self) -> None:
        """Close the connection: vLLM aborts what it still runs for it. Harmless at the end."""
        ...


class EngineHttp(Protocol):
    """How engines are reached; a fake stands here in tests."""

    async def get(self, url: str) -> tuple[int, bytes]:
        """Return status and body, within ``PROBE_S``.

        Raises:
            EngineUnreachableError: No answer.
        """
        ...

    async def send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> EngineReply:
        """Send a request; return once the answer has begun.

        Raises:
            EngineUnreachableError: No answer.
        """
        ...


def missing_extra(package: str) -> ConfigError:
    """Return the error for a package that real engines need and that is not installed."""
    return ConfigError(
        f"real engines need {package}, which is not installed: pip install 'panjiu[engines]'"
    )
