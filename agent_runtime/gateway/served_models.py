"""``GET /v1/models`` before real engines: what they serve, as they describe it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ServedModels:
    """The two model routes.

    Args:
        cards: Returns the models of all engines.
    """

    def __init__(self, cards: Callable[[], Sequence[dict[str, Any]]]) -> None:
        self._cards = cards

    async def list_all(self, _: Request) -> Response:
        """Answer ``GET /v1/models``."""
        return JSONResponse({"object": "list", "data": list(self._cards())})

    async def get_one(self, request: Request) -> Response:
        """Answer ``GET /v1/models/{name}``, which vLLM itself does not have."""
        name = request.path_params["name"]
        for card in self._cards():
            if card["id"] == name:
                return JSONResponse(card)
        return self._not_found(name)

    def unknown(self, name: str) -> Response | None:
        """Return the answer to a call of a model that no engine serves; None if one does."""
        if any(card["id"] == name for card in self._cards()):
            return None
        return self._not_found(name)

    def _not_found(self, name: str) -> Response:
        aliases = ", ".join(str(card["id"]) for card in self._cards())
        error = {
            "message": f"The model `{name}` does not exist. Valid aliases: {aliases}.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }
        return JSONResponse({"error": error}, status_code=404)
