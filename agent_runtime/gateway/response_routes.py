"""``/v1/responses/{id}``: answers that were kept."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import InvalidRequestError
from agent_runtime.gateway.response_store import ResponseStore, StoredResponse
from agent_runtime.gateway.tenants import tenant_of


@dataclass(frozen=True, slots=True)
class ResponseRoutes:
    """The routes.

    Attributes:
        store: Keeps the answers.
    """

    store: ResponseStore[StoredResponse]

    async def get(self, request: Request) -> Response:
        """Answer ``GET /v1/responses/{id}``."""
        kept = await self._known(request)
        return JSONResponse(kept.body)

    async def delete(self, request: Request) -> Response:
        """Answer ``DELETE /v1/responses/{id}``."""
        response_id = (await self._known(request)).response_id
        self.store.delete(tenant_of(request), response_id)
        await self.store.settled()
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        """Answer ``POST /v1/responses/{id}/cancel``.

        Raises:
            InvalidRequestError: It has ended.
        """
        kept = await self._known(request)
        response_id = kept.response_id
        if kept.cancelled is None:
            status = kept.body["status"]
            raise InvalidRequestError(
                f"The response `{response_id}` is {status}; only one in progress can be cancelled.",
                param="response_id",
            )
        kept.cancelled.happen()
        return JSONResponse({**kept.body, "status": "cancelled"})

    async def _known(self, request: Request) -> StoredResponse:
        tenant_id, response_id = tenant_of(request), request.path_params["response_id"]
        await self.store.recall(tenant_id, response_id)
        return self.store.get(tenant_id, response_id)
