"""``/v1/sessions``: what clients tell and ask of sessions beside their turns."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_runtime.errors import InvalidRequestError, SessionStateError
from agent_runtime.gateway.opening import Opening
from agent_runtime.gateway.session_directory import ChatSession, check_session_id, scheduler_id
from agent_runtime.gateway.session_keys import SessionKeys
from agent_runtime.gateway.session_wire import ForkedSession, NewSession, SessionHint
from agent_runtime.gateway.tenants import tenant_of
from agent_runtime.gateway.wire import parse_body
from scheduler.events import GapHint
from scheduler.session_view import SessionPhase, SessionView

DEFAULT_PAGE, MAX_PAGE = 20, 100
_PAGE = re.compile("[0-9]{1,3}")
NOTHING = b"{}"


@dataclass(frozen=True, slots=True)
class Sessions:
    """The routes.

    Attributes:
        opening: Knows who is talking, and the runtime.
    """

    opening: Opening

    async def create(self, request: Request) -> Response:
        """Answer ``POST /v1/sessions``."""
        self.opening.closing.check()
        asked = parse_body(NewSession, await self.opening.read(request) or NOTHING)
        tenant_id = tenant_of(request)
        if asked.parent_session_id is not None:
            check_session_id(asked.parent_session_id)
        session = await self._make(request, asked.id, asked.ttl_s)
        session.priority = asked.priority
        if asked.parent_session_id is not None:
            session.parent_id = scheduler_id(tenant_id, asked.parent_session_id)
        if asked.deadline_s is not None:
            session.deadline_s = self.opening.runner.now_s() + asked.deadline_s
        await self._changed(session)
        return JSONResponse(self._card(session), status_code=201)

    async def list_all(self, request: Request) -> Response:
        """Answer ``GET /v1/sessions?limit=&after=``."""
        limit = _limit(request.query_params.get("limit"))
        after = request.query_params.get("after")
        if self.opening.journal is not None:
            await self.opening.journal.recall_all(tenant_of(request))
        page, has_more = self.opening.sessions.page(tenant_of(request), after, limit)
        data = [self._card(session) for session in page]
        ends = {"first_id": None, "last_id": None}
        if data:
            ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
        return JSONResponse({"object": "list", "data": data, **ends, "has_more": has_more})

    async def get(self, request: Request) -> Response:
        """Answer ``GET /v1/sessions/{id}``."""
        return JSONResponse(self._card(await self._known(request)))

    async def fork(self, request: Request) -> Response:
        """Answer ``POST /v1/sessions/{id}/fork``: another one whose conversation begins as this."""
        self.opening.closing.check()
        source = await self._known(request)
        asked = parse_body(ForkedSession, await self.opening.read(request) or NOTHING)
        session = await self._make(request, asked.id, asked.ttl_s)
        session.memory = source.memory.copy()
        session.forked_from = source.public_id
        session.priority, session.deadline_s = source.priority, source.deadline_s
        await self._changed(session)
        return JSONResponse(self._card(session), status_code=201)

    async def pause(self, request: Request) -> Response:
        """Answer ``POST /v1/sessions/{id}/pause``: no turns from now on, its KV may be given up."""
        session = await self._known(request)
        session.paused = True
        self.opening.runner.close_session(session.session_id)
        await self._changed(session)
        return JSONResponse(self._card(session))

    async def resume(self, request: Request) -> Response:
        """Answer ``POST /v1/sessions/{id}/resume``."""
        session = await self._known(request)
        session.paused = False
        await self._changed(session)
        return JSONResponse(self._card(session))

    async def hint(self, request: Request) -> Response:
        """Answer ``POST /v1/sessions/{id}/hint``: more is known of the tool that runs now.

        Raises:
            SessionStateError: It is in no gap.
        """
        session = await self._known(request)
        asked = parse_body(SessionHint, await self.opening.read(request))
        view = self._view(session)
        if view is None or view.phase is not SessionPhase.GAP:
            raise SessionStateError(
                f"The session `{session.public_id}` is in no tool gap: a turn of it is under way, "
                "or none was. Send hints about the next gap with the turn, as `panjiu`.",
                param="session_id",
            )
        gap = _hinted(view.gap, asked, self.opening.runner.now_s() - view.last_ended_s)
        self.opening.runner.hint_gap(session.session_id, gap)
        return JSONResponse(self._card(session))

    async def close(self, request: Request) -> Response:
        """Answer ``DELETE /v1/sessions/{id}``: it will not return, its KV is worth nothing."""
        session = await self._known(request)
        self.opening.sessions.close(session)
        self.opening.runner.close_session(session.session_id)
        await self._settled()
        return Response(status_code=204)

    async def _known(self, request: Request) -> ChatSession:
        public_id = request.path_params["session_id"]
        if self.opening.journal is not None:
            await self.opening.journal.recall_named(tenant_of(request), public_id)
        return self.opening.sessions.get(tenant_of(request), public_id)

    async def _changed(self, session: ChatSession) -> None:
        """Have it outlive the process, if anything does."""
        self.opening.sessions.changed(session)
        await self._settled()

    async def _settled(self) -> None:
        if self.opening.journal is not None:
            await self.opening.journal.settled()

    async def _make(
        self, request: Request, public_id: str | None, ttl_s: float | None
    ) -> ChatSession:
        if self.opening.journal is not None and public_id is not None:
            await self.opening.journal.recall(SessionKeys(tenant_of(request), public_id), ())
        now_s = anyio.current_time()
        sessions, runner = self.opening.sessions, self.opening.runner
        session = sessions.create(tenant_of(request), public_id, ttl_s, now_s)
        for forgotten in sessions.forget_old(now_s):
            runner.close_session(forgotten)
        return session

    def _view(self, session: ChatSession) -> SessionView | None:
        return self.opening.runner.session_view(session.session_id)

    def _card(self, session: ChatSession) -> dict[str, Any]:
        view = self._view(session)
        return {
            "id": session.public_id,
            "object": "session",
            "state": _state(session, view),
            "context_tokens": 0 if view is None else view.context_tokens,
            "home_replica": None if view is None else view.home,
            "turns": session.num_turns,
            "prompt_tokens": session.num_prompt_tokens,
            "cached_tokens": session.num_cached_tokens,
            "parent_session_id": _public_id(session),
            "forked_from": session.forked_from,
            "priority": session.priority,
            "ttl_s": session.ttl_s,
            "gap": _gap(view, self.opening.runner.now_s()),
        }


def _state(session: ChatSession, view: SessionView | None) -> str:
    phase = None if view is None else view.phase
    if phase is SessionPhase.RUNNING:
        return "running"
    if phase is SessionPhase.HELD:
        return "held"
    if session.paused:
        return "paused"
    return "new" if phase is None else "tool_gap"


def _gap(view: SessionView | None, now_s: float) -> dict[str, Any] | None:
    if view is None or view.phase is not SessionPhase.GAP:
        return None
    return {
        "cause": view.gap.cause.value,
        "tools": list(view.gap.tools),
        "elapsed_s": round(max(0.0, now_s - view.last_ended_s), 6),
        "expected_s": view.gap.expected_s,
        "lease_s": view.gap.lease_s,
    }


def _public_id(session: ChatSession) -> str | None:
    if session.parent_id is None:
        return None
    return str(session.parent_id).removeprefix(f"{session.tenant_id}/" * bool(session.tenant_id))


def _hinted(gap: GapHint, asked: SessionHint, elapsed_s: float) -> GapHint:
    expected_s = asked.expected_tool_s
    if asked.progress is not None:
        expected_s = elapsed_s / asked.progress
    return replace(gap, expected_s=expected_s)


def _limit(given: str | None) -> int:
    if given is None:
        return DEFAULT_PAGE
    if not _PAGE.fullmatch(given) or not 1 <= int(given) <= MAX_PAGE:
        raise InvalidRequestError(
            f"limit: expected a whole number from 1 to {MAX_PAGE}", param="limit"
        )
    return int(given)
