"""A route whose calls are answered by engines: the bytes pass, and a session is scheduled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace
from starlette.requests import Request
from starlette.types import ASGIApp

from agent_runtime.backends.vllm_servers.engine_errands import EngineErrands, Errand
from agent_runtime.gateway.relay.errand_routes import response_path
from agent_runtime.gateway.relay.kept_responses import KeptResponses
from agent_runtime.gateway.relay.passed_headers import PassedHeaders
from agent_runtime.gateway.relay.relay_opening import RelayOpening
from agent_runtime.gateway.relay.relayed_answer import RelayedAnswer, RetryCounts
from agent_runtime.gateway.relay.relayed_api import RelayedApi
from agent_runtime.gateway.relay.relayed_call import RelayedCall, read_call
from agent_runtime.gateway.relay.responses_api import ResponsesApi
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.gateway.turn_desk import ReadyAnswer, TurnDesk, respond

OK = 200


@dataclass(frozen=True, slots=True)
class Relay:
    """What all these routes share.

    Attributes:
        desk: What is around turns.
        opening: Finds sessions, and makes turns of calls.
        headers: Which of a request's pass.
        retries: Told of attempts that failed.
    """

    desk: TurnDesk
    opening: RelayOpening
    headers: PassedHeaders
    retries: RetryCounts

    async def respond(
        self, call: RelayedCall, caller: Caller, request: Request, kept: KeptResponses | None
    ) -> ASGIApp:
        """Return what has engines answer a call."""
        opened = await self.opening.open(call, caller.now_s)
        answer = RelayedAnswer(self.opening, opened, self.retries, kept)
        ready = ReadyAnswer(
            call.api.name, opened.session, call.streams, answer.begin, answer.ends(call.api.path)
        )
        return respond(self.desk, ready, request)


@dataclass(frozen=True, slots=True)
class RelayedRoute:
    """The route of an API whose calls say everything themselves.

    Attributes:
        api: Which.
        relay: What all share.
    """

    api: RelayedApi
    relay: Relay

    async def answer(self, request: Request) -> ASGIApp:
        """Answer one request."""
        relay = self.relay
        body, caller = await relay.desk.take(request)
        call = read_call(self.api, body, caller, relay.headers.of(caller.headers))
        return await relay.respond(call, caller, request, None)


@dataclass(frozen=True, slots=True)
class RelayedResponsesRoute:
    """The route of responses, which may go on with one that some engine has.

    Attributes:
        relay: What all routes share.
        kept: The responses known here.
        errands: Ask engines for those that are not.
    """

    relay: Relay
    kept: KeptResponses
    errands: EngineErrands

    async def answer(self, request: Request) -> ASGIApp:
        """Answer one request."""
        relay, api = self.relay, ResponsesApi()
        body, caller = await relay.desk.take(request)
        headers, fields = relay.headers.of(caller.headers), api.read(body)
        previous = await self.kept.previous(fields, caller.tenant_id)
        continued = None if previous is None else previous.session_id
        call = read_call(api, body, caller, headers, fields=fields, continued=continued)
        if previous is not None:
            call = self.kept.resolved(call, previous)
        elif isinstance(fields.get("previous_response_id"), str):
            call = await self._for_its_owner(call, fields["previous_response_id"], headers)
        return await relay.respond(call, caller, request, self.kept)

    async def _for_its_owner(
        self, call: RelayedCall, response_id: str, headers: Mapping[str, str]
    ) -> RelayedCall:
        """Return the call for the engine that has a response from before the gateway's time."""
        errand = Errand("GET", response_path(response_id), b"", headers)
        async with self.errands.ask_any(errand, until_found=True) as answered:
            only = answered.replica_id if answered.reply.status == OK else None
        return replace(call, only=only)
