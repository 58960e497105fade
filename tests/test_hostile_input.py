"""Anything at all, sent to every route of both gateways: refused in their words, and forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from agent_runtime.asgi_exchange import AsgiRequest
from tests.hostile_gateways import GATEWAYS, Answer, Gateway, Hosted, hosted
from tests.hostile_requests import requests, routes_of

WELL_FORMED = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
CLIENT_ERRORS = range(400, 500)
NOT_ANSWERED = 499


@pytest.fixture(scope="module", params=sorted(GATEWAYS))
def host(request: pytest.FixtureRequest) -> Iterator[Hosted]:
    with hosted(GATEWAYS[request.param]()) as opened:
        yield opened


def assert_told(asked: AsgiRequest, answer: Answer) -> None:
    """Assert that an error has the shape of its API, and words."""
    if asked.method == "HEAD":
        return
    error = answer.json()["error"]
    if asked.target.startswith(b"/v1/messages"):
        assert answer.json()["type"] == "error"
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)


async def assert_as_before(gateway: Gateway, asked: AsgiRequest, before: list[str]) -> None:
    """Assert that a request did what its answer says, and nothing else."""
    answer = await gateway.ask(asked)
    note(f"{asked.method} {asked.target[:200]!r} -> {answer.status} {answer.body[:300]!r}")
    assert answer.status < 500, answer.body
    refused = answer.status in CLIENT_ERRORS
    if refused:
        assert_told(asked, answer)
        assert sorted(await gateway.session_ids()) == sorted(before)
    for session_id in await gateway.session_ids():
        gone = await gateway.send("DELETE", f"/v1/sessions/{quote(session_id, safe='')}")
        assert gone.status == 204, "whatever its id is, it can be spelt in a path"


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)
@given(data=st.data())
def test_whatever_is_sent_is_answered_or_refused_in_words_and_leaves_nothing(
    host: Hosted, data: st.DataObject
) -> None:
    _, asked = data.draw(requests(routes_of(host.gateway.app)))

    async def send_it(gateway: Gateway) -> None:
        await assert_as_before(gateway, asked, await gateway.session_ids())
        well = await gateway.send("POST", "/v1/chat/completions", WELL_FORMED, x_session_id="well")
        assert well.status == 200, well.body
        gateway.check()

    host.run(send_it)
