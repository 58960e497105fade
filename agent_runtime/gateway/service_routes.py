"""``/health``, ``/ready``, ``/version``: what whoever runs the server asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import BackendError
from agent_runtime.gateway.closing import Closing
from agent_runtime.gateway.error_mapping import error_response

DISTRIBUTION = "panjiu"


@dataclass(frozen=True, slots=True)
class ServiceRoutes:
    """The routes.

    Attributes:
        unready: Returns why the backend takes no turns; None while it does.
        closing: Of the endpoint: while it closes, it takes none either.
    """

    unready: Callable[[], BackendError | None]
    closing: Closing

    async def health(self, _: Request) -> Response:
        """Answer ``GET /health``: the process lives."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Answer ``GET /ready``: turns are taken."""
        error = self.closing.unready() or self.unready()
        if error is not None:
            return error_response(error, request.scope["path"])
        return JSONResponse({"status": "ready"})

    async def version(self, _: Request) -> Response:
        """Answer ``GET /version``."""
        return JSONResponse({"version": version(DISTRIBUTION)})
