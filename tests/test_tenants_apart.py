"""Two tenants who use the same ids, say the same, and try each other's: neither can tell."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from agent_runtime.gateway.tenants import TenantKeys
from scheduler.ids import TenantId
from tests.hostile_gateways import GATEWAYS, Answer, Gateway, Hosted, hosted

KEYS = {"red": "sk-red-12345", "blue": "sk-blue-1234"}
TENANTS = TenantKeys({TenantId(name): [key] for name, key in KEYS.items()})
DASHBOARD_KEY = "sk-dashboard"
IDS = (
    "a",
    "a/b",
    "red/a",
    "blue/a",
    "red/blue/a",
    "found-1",
    "a/fork",
    "..",
    "%2e",
    "ä b",
    "c?d#e",
)
TEXTS = ("what both ask " * 30, "what both ask too " * 30)
SHOWN = ("id", "turns", "prompt_tokens", "parent_session_id", "forked_from", "priority", "ttl_s")

tenants = st.sampled_from(sorted(KEYS))
ids = st.sampled_from(IDS)


def secret_of(tenant: str) -> str:
    return f"told-{tenant}-alone"


def other_than(tenant: str) -> str:
    return "blue" if tenant == "red" else "red"


def spelt(session_id: str) -> str:
    return quote(session_id, safe="")


class Apart(RuleBasedStateMachine):
    """What each tenant has, in the machine as in the gateway.

    Attributes:
        sessions: Ids of each tenant's.
        responses: Ids of each tenant's that were not deleted.
        said: Who has asked what of ``TEXTS`` with which salt; of the gateway, which is not new to
            every run of the machine.
    """

    host: Hosted
    said: set[tuple[str, str, str | None]]

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, set[str]] = {name: set() for name in KEYS}
        self.responses: dict[str, list[str]] = {name: [] for name in KEYS}

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.host.runner.run(work)

    async def cards(self, tenant: str) -> list[tuple[Any, ...]]:
        """What a tenant sees of its sessions that does not change by itself."""
        gateway, found = self.host.gateway, []
        for session_id in await gateway.session_ids(KEYS[tenant]):
            target = f"/v1/sessions/{spelt(session_id)}"
            card = (await gateway.send("GET", target, key=KEYS[tenant])).json()
            found.append((*(card[name] for name in SHOWN), card["state"] == "paused"))
        return found

    async def send(self, tenant: str, method: str, target: str, body: Any = None) -> Answer:
        """Ask as a tenant; nothing of the other's is told by it, and nothing of theirs changed."""
        other = other_than(tenant)
        before = await self.cards(other)
        answer = await self.host.gateway.send(method, target, body, key=KEYS[tenant])
        assert answer.status < 500, answer.body
        assert secret_of(other).encode() not in answer.body
        assert secret_of(other) not in str(answer.headers)
        assert await self.cards(other) == before
        return answer

    @initialize()
    def begin(self) -> None:
        self.do(self._empty())

    @rule(tenant=tenants, session_id=ids, parent=st.none() | ids)
    def open_a_session(self, tenant: str, session_id: str, parent: str | None) -> None:
        body = {"id": session_id, "parent_session_id": parent, "priority": 1}
        answer = self.do(self.send(tenant, "POST", "/v1/sessions", body))
        known = session_id in self.sessions[tenant]
        assert answer.status == (409 if known else 201)
        if not known:
            assert answer.json()["parent_session_id"] == parent
            self.sessions[tenant].add(session_id)

    @rule(
        tenant=tenants,
        path=st.sampled_from(["/v1/chat/completions", "/v1/messages", "/v1/completions"]),
        session_id=st.none() | ids,
        text=st.sampled_from(TEXTS),
        salt=st.none() | st.sampled_from(["s", "red", "blue"]),
    )
    def take_a_turn(
        self, tenant: str, path: str, session_id: str | None, text: str, salt: str | None
    ) -> None:
        said = text + secret_of(tenant)
        body: dict[str, Any] = {"max_tokens": 2, "session_id": session_id, "cache_salt": salt}
        body |= (
            {"prompt": said}
            if path == "/v1/completions"
            else {"messages": [{"role": "user", "content": said}]}
        )
        paused = self.is_paused(tenant, session_id)
        answer = self.do(self.send(tenant, "POST", path, body))
        assert answer.status == (409 if paused else 200), answer.body
        if not paused:
            self.note_session(tenant, answer, session_id)
            self.note_cached((tenant, text, salt), answer.json()["usage"])

    @rule(tenant=tenants, owner=tenants, number=st.integers(0, 3), text=st.sampled_from(TEXTS))
    def go_on_with_a_response(self, tenant: str, owner: str, number: int, text: str) -> None:
        body: dict[str, Any] = {"input": text + secret_of(tenant), "max_output_tokens": 16}
        kept = self.responses[owner]
        if number and kept:
            body["previous_response_id"] = kept[number % len(kept)]
        answer = self.do(self.send(tenant, "POST", "/v1/responses", body))
        if "previous_response_id" in body and owner != tenant:
            assert answer.status == 404
            return
        if answer.status == 409:  # that of a session that is paused
            return
        assert answer.status == 200, answer.body
        self.responses[tenant].append(answer.json()["id"])
        self.note_session(tenant, answer)
        self.said.add((tenant, text, None))

    @rule(
        tenant=tenants,
        owner=tenants,
        number=st.integers(0, 3),
        how=st.sampled_from([("GET", ""), ("DELETE", ""), ("POST", "/cancel")]),
    )
    def try_a_response(self, tenant: str, owner: str, number: int, how: tuple[str, str]) -> None:
        kept = self.responses[owner]
        name = kept[number % len(kept)] if kept else "resp_guessed"
        method, more = how
        answer = self.do(self.send(tenant, method, f"/v1/responses/{name}{more}"))
        if not kept or owner != tenant:
            assert answer.status == 404
        elif method == "DELETE":
            assert answer.status == 200
            kept.remove(name)
        else:
            assert answer.status != 404 or method == "POST"

    @rule(tenant=tenants, number=st.integers(0, 3))
    def refer_to_an_item_of_the_others(self, tenant: str, number: int) -> None:
        kept = self.responses[other_than(tenant)]
        if self.host.gateway.kind == "emulated" and kept:
            answer = self.do(self.others_item(tenant, kept[number % len(kept)]))
            assert answer.status == 400
            assert "was not stored" in answer.json()["error"]["message"]

    @rule(
        tenant=tenants,
        session_id=ids,
        how=st.sampled_from(["GET", "DELETE", "pause", "resume", "hint", "fork"]),
        new_id=st.none() | ids,
    )
    def try_a_session(self, tenant: str, session_id: str, how: str, new_id: str | None) -> None:
        target = f"/v1/sessions/{spelt(session_id)}"
        body = {"hint": {"expected_tool_s": 3.0}, "fork": {"id": new_id}}.get(how)
        method = how if how.isupper() else "POST"
        if method == "POST":
            target += f"/{how}"
        own = self.sessions[tenant]
        answer = self.do(self.send(tenant, method, target, body))
        if session_id not in own:
            assert answer.status == 404
        elif how == "DELETE":
            assert answer.status == 204
            own.remove(session_id)
        elif how == "fork":
            assert answer.status == (409 if new_id in own else 201)
            if answer.status == 201:
                assert answer.json()["forked_from"] == session_id
                own.add(answer.json()["id"])
        else:
            assert answer.status in ({200, 409} if how == "hint" else {200})

    @rule(tenant=tenants, place=st.sampled_from(["/view/stream", "/view/turns/turn-1"]))
    def watch_everybody(self, tenant: str, place: str) -> None:
        assert self.do(self.send(tenant, "GET", place)).status == 403

    @rule(tenant=tenants, path=st.sampled_from(["/tokenize", "/v1/messages/count_tokens"]))
    def count(self, tenant: str, path: str) -> None:
        body = {"messages": [{"role": "user", "content": secret_of(tenant)}]}
        assert self.do(self.send(tenant, "POST", path, body)).status == 200

    @rule()
    def read_what_is_open_to_all(self) -> None:
        for target in ("/metrics", "/health", "/ready", "/version", "/openapi.json", "/"):
            answer: Answer = self.do(self.host.gateway.send("GET", target))
            assert answer.status == 200
            for name, key in KEYS.items():
                for private in (secret_of(name), key, f'"{name}"'):
                    assert private.encode() not in answer.body

    @invariant()
    def everybody_has_what_is_theirs(self) -> None:
        for tenant, known in self.sessions.items():
            assert set(self.do(self.host.gateway.session_ids(KEYS[tenant]))) == known
        self.host.gateway.check()

    @override
    def teardown(self) -> None:
        self.do(self._empty())

    def note_session(self, tenant: str, answer: Answer, named: str | None = None) -> None:
        session_id = unquote(answer.headers["x-session-id"])
        assert named is None or session_id == named
        self.sessions[tenant].add(session_id)

    def note_cached(self, asked: tuple[str, str, str | None], usage: dict[str, Any]) -> None:
        details = usage.get("prompt_tokens_details") or {}
        num_cached = usage.get("cache_read_input_tokens") or details.get("cached_tokens") or 0
        assert num_cached == 0 or asked in self.said, "KV that others left"
        self.said.add(asked)

    def is_paused(self, tenant: str, session_id: str | None) -> bool:
        if session_id not in self.sessions[tenant]:
            return False
        return any(card[0] == session_id and card[-1] for card in self.do(self.cards(tenant)))

    async def others_item(self, tenant: str, response_id: str) -> Answer:
        target, key = f"/v1/responses/{response_id}", KEYS[other_than(tenant)]
        output = (await self.host.gateway.send("GET", target, key=key)).json()["output"]
        item = {"type": "item_reference", "id": output[0]["id"]}
        body = {"input": [item, {"role": "user", "content": "u"}], "max_output_tokens": 16}
        return await self.send(tenant, "POST", "/v1/responses", body)

    async def _empty(self) -> None:
        for key in KEYS.values():
            for session_id in await self.host.gateway.session_ids(key):
                target = f"/v1/sessions/{spelt(session_id)}"
                assert (await self.host.gateway.send("DELETE", target, key=key)).status == 204


@pytest.fixture(scope="module", params=sorted(GATEWAYS))
def host(request: pytest.FixtureRequest) -> Iterator[Hosted]:
    with hosted(GATEWAYS[request.param](TENANTS, DASHBOARD_KEY)) as opened:
        yield opened


def test_whatever_two_tenants_do_they_do_not_meet(host: Hosted) -> None:
    class ApartHere(Apart):
        pass

    ApartHere.host, ApartHere.said = host, set()
    run_state_machine_as_test(
        ApartHere,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_engines_are_asked_with_salts_that_tenants_do_not_share(host: Hosted) -> None:
    async def ask(gateway: Gateway) -> None:
        if gateway.engine is None:
            return
        salts: dict[str, set[str]] = {}
        for tenant, key in KEYS.items():
            gateway.engine.asked.clear()
            for path, more in (
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "u"}]}),
                ("/v1/completions", {"prompt": "u"}),
                ("/v1/messages", {"messages": [{"role": "user", "content": "u"}]}),
                ("/v1/responses", {"input": "u"}),
            ):
                for salt in (None, "red", "blue"):
                    body = {"max_tokens": 2, "cache_salt": salt, **more}
                    assert (await gateway.send("POST", path, body, key=key)).status == 200
            salts[tenant] = {asked["cache_salt"] for asked in gateway.engine.asked}
            assert len(salts[tenant]) == 3
        assert not salts["red"] & salts["blue"]

    host.run(ask)


@pytest.mark.parametrize("name", ["kv_transfer_params", "request_id"])
def test_tenants_can_not_name_what_engines_keep_for_others(host: Hosted, name: str) -> None:
    async def ask(gateway: Gateway) -> None:
        if gateway.engine is None:
            return
        gateway.engine.asked.clear()
        for more in ({name: {"remote_block_ids": [1]}}, {"vllm_xargs": {name: "x"}}):
            body = {"input": "u", "messages": [], "prompt": "u", **more}
            for path in ("chat/completions", "completions", "messages", "responses"):
                answer = await gateway.send("POST", f"/v1/{path}", body, key=KEYS["red"])
                assert answer.status == 400
                assert f"{name}: not taken from tenants" in answer.json()["error"]["message"]
        assert gateway.engine.asked == []

    host.run(ask)
