"""``GET /v1/models``: what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import UnknownModelError


class Models:
    """The two model routes.

    Args:
        cards: Returns a description of every model, in OpenAI's form.
        any_name: Whether they answer to every other name too, for programs that name their own.
    """

    def __init__(
        self, cards: Callable[[], Sequence[Mapping[str, Any]]], *, any_name: bool = False
    ) -> None:
        self._cards = cards
        self._any_name = any_name

    @classmethod
    def of_one(
        cls, name: str, created: int, max_context_tokens: int, *, any_name: bool = False
    ) -> Models:
        """Return the routes where one model is served.

        Args:
            name: What it is served under.
            created: Seconds since 1970.
            max_context_tokens: Longest prompt + output.
            any_name: Whether it answers to every other name too.
        """
        card = {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "panjiu",
            "max_model_len": max_context_tokens,
        }
        return cls(lambda: (card,), any_name=any_name)

    async def list_all(self, _: Request) -> Response:
        """Answer ``GET /v1/models``."""
        cards = [_for_all_clients(card) for card in self._cards()]
        ends = {"first_id": None, "last_id": None}
        if cards:
            ends = {"first_id": cards[0]["id"], "last_id": cards[-1]["id"]}
        return JSONResponse({"object": "list", "data": cards, **ends, "has_more": False})

    async def get_one(self, request: Request) -> Response:
        """Answer ``GET /v1/models/{name}``."""
        name = request.path_params["name"]
        self.check(name)
        cards = self._cards()
        card = next((card for card in cards if card["id"] == name), cards[0])
        return JSONResponse(_for_all_clients(card))

    def check(self, name: str) -> None:
        """Raise if another model is asked for.

        Raises:
            UnknownModelError: Names those there are.
        """
        if self._any_name:
            return
        for card in self._cards():
            if card["id"] == name:
                return
        available = ", ".join(str(card["id"]) for card in self._cards())
        raise UnknownModelError(
            f"The model `{name}` does not exist. Available: {available}.", param="model"
        )


def _for_all_clients(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card with Anthropic's members too; clients pass over what they don't know."""
    created = datetime.fromtimestamp(int(card.get("created") or 0), UTC)
    return {
        **card,
        "type": "model",
        "display_name": card["id"],
        "created_at": created.isoformat(),
    }
