"""The routes that vLLM has beside its APIs, and its own forms of what OpenAI's differ in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from agent_runtime.errors import RequestError
from agent_runtime.gateway.error_mapping import http_error
from agent_runtime.look_alikes.kv_event_feed import BatchPublisher
from agent_runtime.look_alikes.prometheus_text import CONTENT_TYPE, MetricsPage
from hw_model.engine.engine_core import EngineCore

VLLM_VERSION = "0.32.0"
"""What the look-alikes say they are."""


@dataclass(frozen=True, slots=True)
class VllmRoutes:
    """The routes of one replica.

    Attributes:
        model: The name it is served under.
        created: Seconds since 1970.
        engine: The replica.
        metrics: What ``/metrics`` tells.
        kv_events: Where its KV events are published, if they are.
    """

    model: str
    created: int
    engine: EngineCore
    metrics: MetricsPage
    kv_events: BatchPublisher | None

    def routes(self) -> list[BaseRoute]:
        """Return them all."""
        return [
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/health", _empty, methods=["GET"]),
            Route("/ping", _empty, methods=["GET", "POST"]),
            Route("/version", _version, methods=["GET"]),
            Route("/load", self._load, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/kv_event_sources", self._kv_event_sources, methods=["GET"]),
        ]

    async def _models(self, _: Request) -> Response:
        card = {
            "id": self.model,
            "object": "model",
            "created": self.created,
            "owned_by": "vllm",
            "root": self.model,
            "parent": None,
            "max_model_len": self.engine.max_context_tokens,
            "permission": [],
        }
        return JSONResponse({"object": "list", "data": [card]})

    async def _load(self, _: Request) -> Response:
        return JSONResponse({"server_load": self.engine.num_running + self.engine.num_waiting})

    async def _kv_event_sources(self, _: Request) -> Response:
        return JSONResponse({} if self.kv_events is None else {"0": self.kv_events.source()})

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})


async def _empty(_: Request) -> Response:
    return Response()


async def _version(_: Request) -> Response:
    return JSONResponse({"version": VLLM_VERSION})


ErrorHandler = Callable[[Request, Exception], Any]


async def on_request_error(_: Request, error: Exception) -> Response:
    """Answer a caller's error as vLLM does: ``code`` is the status."""
    assert isinstance(error, RequestError)  # noqa: S101 - registered for it
    status = http_error(error).status
    kind = HTTPStatus(status).phrase.replace(" ", "") + "Error"
    body = {"message": str(error), "type": kind, "param": error.param, "code": status}
    return JSONResponse({"error": body}, status_code=status)


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Answer an unknown route or a wrong method as vLLM does."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
