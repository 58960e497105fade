"""Every route there is: what answers it, and what the document says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeAlias

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_runtime.gateway.answering import AnswerDesk, Answering
from agent_runtime.gateway.count_route import CountRoute
from agent_runtime.gateway.dialects.chat_dialect import ChatDialect
from agent_runtime.gateway.dialects.chat_wire import ChatRequest
from agent_runtime.gateway.dialects.completions_dialect import CompletionsDialect
from agent_runtime.gateway.dialects.completions_wire import CompletionRequest
from agent_runtime.gateway.dialects.messages_dialect import MessagesDialect
from agent_runtime.gateway.dialects.messages_wire import CountRequest, MessagesRequest
from agent_runtime.gateway.dialects.responses_dialect import ResponsesDialect
from agent_runtime.gateway.dialects.responses_wire import ResponsesRequest
from agent_runtime.gateway.metrics import PrometheusCounts
from agent_runtime.gateway.openapi import OpenApi, Operation
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.response_routes import ResponseRoutes
from agent_runtime.gateway.response_store import ResponseStore, StoredResponse
from agent_runtime.gateway.service_routes import DISTRIBUTION, ServiceRoutes
from agent_runtime.gateway.session_wire import ForkedSession, NewSession, SessionHint
from agent_runtime.gateway.sessions import Sessions
from agent_runtime.gateway.tokenise_route import TokeniseRoute, TokenizeRequest

Answer: TypeAlias = Callable[[Request], Awaitable[ASGIApp]]
"""Reads a request, and returns what answers it."""


@dataclass(frozen=True, slots=True)
class Served:
    """A route.

    Attributes:
        operation: What the document says of it.
        answer: What answers it.
    """

    operation: Operation
    answer: Answer


CHAT = Operation("post", "/v1/chat/completions", "Answer a chat", body=ChatRequest, streams=True)
COMPLETIONS = Operation(
    "post", "/v1/completions", "Go on with a text", body=CompletionRequest, streams=True
)
RESPONSES = Operation("post", "/v1/responses", "Answer items", body=ResponsesRequest, streams=True)
_ONE_RESPONSE = "/v1/responses/{response_id}"
GET_RESPONSE = Operation("get", _ONE_RESPONSE, "A response that was kept")
DELETE_RESPONSE = Operation("delete", _ONE_RESPONSE, "Forget a response")
CANCEL_RESPONSE = Operation("post", f"{_ONE_RESPONSE}/cancel", "End a response in progress")
MESSAGES = Operation("post", "/v1/messages", "Answer messages", body=MessagesRequest, streams=True)
COUNT_TOKENS = Operation("post", "/v1/messages/count_tokens", "Count a prompt", body=CountRequest)
TOKENIZE = Operation("post", "/tokenize", "Cut a prompt into tokens", body=TokenizeRequest)
DETOKENIZE = Operation("post", "/detokenize", "Put tokens together again")


def dialect_routes(desk: AnswerDesk, store: ResponseStore[StoredResponse]) -> list[Served]:
    """Return the routes of every dialect of the emulated model."""
    kept, opening = ResponseRoutes(store), desk.turns.opening
    return [
        chat_route(Answering(ChatDialect(), desk).answer),
        Served(MESSAGES, Answering(MessagesDialect(), desk).answer),
        Served(RESPONSES, Answering(ResponsesDialect(store), desk).answer),
        Served(COMPLETIONS, Answering(CompletionsDialect(), desk).answer),
        Served(GET_RESPONSE, kept.get),
        Served(DELETE_RESPONSE, kept.delete),
        Served(CANCEL_RESPONSE, kept.cancel),
        Served(COUNT_TOKENS, CountRoute(opening).answer),
        Served(TOKENIZE, TokeniseRoute(opening).answer),
    ]


def chat_route(answer: Answer) -> Served:
    """Return the route of chat completions."""
    return Served(CHAT, answer)


def common_routes(
    opening: Opening, counts: PrometheusCounts, service: ServiceRoutes
) -> list[Served]:
    """Return the routes that are there whatever answers."""
    sessions, models = Sessions(opening), opening.models
    one = "/v1/sessions/{session_id:path}"
    return [
        Served(Operation("get", "/v1/models", "The model that is served"), models.list_all),
        Served(Operation("get", "/v1/models/{name:path}", "A model"), models.get_one),
        Served(
            Operation(
                "post",
                "/v1/sessions",
                "Open a session",
                NewSession,
                body_required=False,
                status=201,
            ),
            sessions.create,
        ),
        Served(Operation("get", "/v1/sessions", "Sessions, paged by id"), sessions.list_all),
        Served(
            Operation(
                "post",
                f"{one}/fork",
                "Begin another as this one",
                ForkedSession,
                body_required=False,
                status=201,
            ),
            sessions.fork,
        ),
        Served(Operation("post", f"{one}/pause", "Let it have no turns"), sessions.pause),
        Served(Operation("post", f"{one}/resume", "Let it have turns again"), sessions.resume),
        Served(
            Operation("post", f"{one}/hint", "Tell of the tool that runs", SessionHint),
            sessions.hint,
        ),
        Served(Operation("get", one, "A session"), sessions.get),
        Served(Operation("delete", one, "It will not return", status=204), sessions.close),
        Served(Operation("get", "/health", "The process lives", guarded=False), service.health),
        Served(Operation("get", "/ready", "Turns are taken", guarded=False), service.ready),
        Served(Operation("get", "/version", "Of the server", guarded=False), service.version),
        Served(
            Operation(
                "get", "/metrics", "For Prometheus", guarded=False, media_types=("text/plain",)
            ),
            counts.answer,
        ),
    ]


def starlette_routes(served: Sequence[Served]) -> list[Route]:
    """Return what Starlette takes, and the document of it all."""
    about = Operation("get", "/openapi.json", "This document", guarded=False)
    document = OpenApi([*(one.operation for one in served), about], version(DISTRIBUTION))
    by_path: dict[str, dict[str, Answer]] = {}
    for one in [*served, Served(about, document.answer)]:
        by_path.setdefault(one.operation.path, {})[one.operation.method.upper()] = one.answer
    # One route a path: a 405 tells the methods of the first that fits alone.
    return [
        Route(path, _ByMethod(answers), methods=list(answers)) for path, answers in by_path.items()
    ]


class _ByMethod:
    """An ASGI app: Starlette has a second net for errors, like the app's own, under functions."""

    __slots__ = ("_answers",)

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        answer = self._answers["GET" if method == "HEAD" else method]
        response = await answer(Request(scope, receive, send))
        await response(scope, receive, send)
