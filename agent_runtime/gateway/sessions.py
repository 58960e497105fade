"""``/v1/sessions``: what clients tell of sessions beside their turns."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from agent_runtime.gateway.session_directory import SessionDirectory
from agent_runtime.turns import TurnRunner


@dataclass(frozen=True, slots=True)
class Sessions:
    """The route.

    Attributes:
        runner: Knows where sessions live.
        sessions: Who is talking.
    """

    runner: TurnRunner
    sessions: SessionDirectory

    async def close(self, request: Request) -> Response:
        """Answer ``DELETE /v1/sessions/{id}``: it will not return, its KV is worth nothing."""
        session_id = request.path_params["session_id"]
        self.runner.close_session(self.sessions.close(session_id))
        return Response(status_code=204)
