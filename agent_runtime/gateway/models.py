"""``GET /v1/models``: the one model that is served."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import UnknownModelError


class Models:
    """The two model routes.

    Args:
        name: What the model is served under.
        created: Seconds since 1970.
        max_context_tokens: Longest prompt + output.
        any_name: Whether it answers to every other name too, for programs that name their own.
    """

    def __init__(
        self, name: str, created: int, max_context_tokens: int, *, any_name: bool = False
    ) -> None:
        self._any_name = any_name
        # OpenAI's members and Anthropic's; clients of either pass over what they don't know.
        self._card = {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "panjiu",
            "max_model_len": max_context_tokens,
            "type": "model",
            "display_name": name,
            "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
        }

    async def list_all(self, _: Request) -> Response:
        """Answer ``GET /v1/models``."""
        name = self._card["id"]
        page = {"first_id": name, "last_id": name, "has_more": False}
        return JSONResponse({"object": "list", "data": [self._card], **page})

    async def get_one(self, request: Request) -> Response:
        """Answer ``GET /v1/models/{name}``."""
        self.check(request.path_params["name"])
        return JSONResponse(self._card)

    def check(self, name: str) -> None:
        """Raise if another model is asked for.

        Raises:
            UnknownModelError: Names the one there is.
        """
        if name != self._card["id"] and not self._any_name:
            raise UnknownModelError(
                f"The model `{name}` does not exist. Available: {self._card['id']}.", param="model"
            )
