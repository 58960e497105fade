"""``/health``, ``/ready``, ``/version``: what whoever runs the server asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import BackendStoppedError
from agent_runtime.gateway.error_mapping import error_response

DISTRIBUTION = "panjiu"


@dataclass(frozen=True, slots=True)
class ServiceRoutes:
    """The routes.

    Attributes:
        takes_turns: Whether the backend does.
    """

    takes_turns: Callable[[], bool]

    async def health(self, _: Request) -> Response:
        """Answer ``GET /health``: the process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Answer ``GET /ready``: turns are taken."""
        if not self.takes_turns():
            return error_response(BackendStoppedError(), request.url.path)
        return JSONResponse({"status": "ready"})

    async def version(self, _: Request) -> Response:
        """Answer ``GET /version``."""
        return JSONResponse({"version": version(DISTRIBUTION)})
