"""An engine that takes whatever it is asked, so that what is refused was refused by the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from typing_extensions import override

from tests.lookalike_engine import LookalikeEngine

UNKNOWN = {
    "error": {"message": "no such response", "type": "NotFoundError", "param": None, "code": None}
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
_CHAT = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "w"}}
_CHUNK = {"index": 0, "finish_reason": "stop", "delta": {"role": "assistant", "content": "w"}}
_TEXT = {"index": 0, "finish_reason": "stop", "text": "w"}
_PART = {"type": "output_text", "text": "w", "annotations": []}


class PatientEngine(LookalikeEngine):
    """Says one word to everything; responses have the ids that they are asked to have, as vLLM's.

    Attributes:
        paths: Of all that it was asked beside calls, as they stood in the request lines.
        kept: Bodies of its responses, by id.
        refuses: The status of every answer to a call; None for success.
    """

    def __init__(self) -> None:
        super().__init__(num_blocks=1_000_000)  # nobody waits for room
        self.paths: list[str] = []
        self.kept: dict[str, dict[str, Any]] = {}
        self.refuses: int | None = None

    @override
    def app(self) -> Starlette:
        calls = ("chat/completions", "completions", "messages", "responses")
        return Starlette(
            routes=[
                *(Route(f"/v1/{call}", self._call, methods=["POST"]) for call in calls),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
                Route("/kv_event_sources", self._sources),
                Route("/v1/responses/{name}", self._response, methods=["GET"]),
                Route("/{path:path}", self._errand, methods=["GET", "POST"]),
            ]
        )

    async def _call(self, request: Request) -> Response:
        fields = json.loads(await request.body())
        self.asked.append(fields)
        self.headers.append(dict(request.headers))
        if self.refuses is not None:
            return JSONResponse(UNKNOWN, self.refuses)
        name = request.url.path.rpartition("/v1/")[2]
        if fields.get("stream"):
            events = self._events(name, fields)
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse(self._whole(name, fields))

    def _whole(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        if name == "messages":
            content = [{"type": "text", "text": "w"}]
            usage = {"input_tokens": 3, "output_tokens": 2}
            return {"id": "m", "role": "assistant", "content": content, "usage": usage}
        if name == "responses":
            response_id = str(fields.get("request_id") or f"resp_{next(self.ids)}")
            message = {"type": "message", "role": "assistant", "content": [_PART]}
            self.kept[response_id] = {
                "id": response_id,
                "status": "completed",
                "output": [message],
                "asked": str(fields.get("input")),
            }
            return self.kept[response_id]
        choice = _CHAT if name.startswith("chat") else _TEXT
        return {"id": f"id-{next(self.ids)}", "choices": [choice], "usage": USAGE}

    async def _events(self, name: str, fields: dict[str, Any]) -> AsyncIterator[bytes]:
        whole = self._whole(name, fields)
        if name == "messages":
            events: list[Any] = [
                {"type": "message_start", "message": {**whole, "content": []}},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
                {"type": "message_stop"},
            ]
        elif name == "responses":
            begun = {**whole, "status": "in_progress", "output": []}
            events = [
                {"type": "response.created", "response": begun},
                {"type": "response.completed", "response": whole},
            ]
        else:
            choice = _CHUNK if name.startswith("chat") else _TEXT
            events = [{"choices": [choice]}, {"choices": [], "usage": USAGE}, "[DONE]"]
        for event in events:
            kind = b"event: %b\n" % event["type"].encode() if "type" in event else b""
            data = b"[DONE]" if event == "[DONE]" else json.dumps(event).encode()
            yield kind + b"data: " + data + b"\n\n"

    async def _response(self, request: Request) -> Response:
        self.paths.append(request.scope["raw_path"].decode("latin-1"))
        kept = self.kept.get(request.path_params["name"])
        if kept is None:
            return JSONResponse(UNKNOWN, 404)
        return JSONResponse(kept)

    async def _errand(self, request: Request) -> Response:
        self.paths.append(request.scope["raw_path"].decode("latin-1"))
        if request.url.path.startswith("/v1/responses/"):
            return JSONResponse(UNKNOWN, 404)
        return JSONResponse({"count": 1, "tokens": [1], "input_tokens": 1})
