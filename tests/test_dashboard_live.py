"""The dashboard's page before a server that says what tests tell it to. ``make test-dashboard``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.browser import Watched
from tests.rack_messages import DECODE, GAP, HELD, PREFILL, frame, layout
from tests.served_command import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ASKED_AGAIN = "Failed to load resource"  # Chromium's own word on an answer of 4xx or 5xx
Visited = Callable[..., Watched]


@dataclass(frozen=True, slots=True)
class Server:
    """A ``tests.scripted_view`` that runs."""

    url: str

    def script(self, **told: Any) -> None:
        said = [m if isinstance(m, str) else json.dumps(m) for m in told.pop("say", [])]
        httpx2.post(f"{self.url}/script", json={**told, "say": said}).raise_for_status()


@pytest.fixture
def server(browser: Browser) -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.scripted_view"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}")
        process.kill()


@pytest.fixture
def visited(browser: Browser, server: Server) -> Iterator[Visited]:
    """Opens the page; what it complained of or asked anybody else for fails the test."""
    pages: list[Watched] = []

    def visit(**options: Any) -> Watched:
        watched = Watched(browser, **options)
        pages.append(watched)
        watched.page.goto(server.url)
        watched.wait_for("view.phase !== 'connecting'")
        return watched

    yield visit
    for watched in pages:
        assert [said for said in watched.complaints if ASKED_AGAIN not in said] == []
        assert {url.split("/")[2] for url in watched.requests if not url.startswith("data:")} == {
            server.url.split("/")[2]
        }
        watched.context.close()


LAYOUT = layout(2, source="emulated", speed=5.0)
SESSIONS = [
    ["a", DECODE, 0, 50_000, 0.0, "a#1", ""],
    ["b", GAP, 1, 90_000, 0.0, "", ""],
    ["c", HELD, -1, 20_000, 0.0, "c#0", ""],
]
WHOLE = frame(1.0, 2, whole=True, sessions=SESSIONS)
SENT = frame(
    2.0,
    2,
    sessions=[["c", PREFILL, 1, 20_000, 1.6, "c#0", ""]],
    latest=[["c#0", "c", 1, 1.6, 1.6, 9_000], ["forgotten#7", "a", 0, 1.7, 0.0, 100]],
)


def test_it_follows_what_the_server_says(server: Server, visited: Visited) -> None:
    watched = visited()
    server.script(say=[LAYOUT, WHOLE])
    watched.wait_for("view.counts.held === 1 && view.numDots === 3")
    server.script(say=[SENT])
    watched.wait_for("view.counts.prefill === 1 && view.counts.held === 0")
    server.script(say=[frame(3.0, 2, gone=["a", "never seen"])])
    watched.wait_for("view.numDots === 2 && view.t === 3")
    assert watched.page.locator("#status-word").inner_text() == "Live"
    assert "5x real time" in watched.page.locator("#facts").inner_text()


def test_a_session_that_is_gone_and_back_in_one_frame_is_there(
    server: Server, visited: Visited
) -> None:
    server.script(say=[LAYOUT, WHOLE, frame(2.0, 2, gone=["a"], sessions=[SESSIONS[0]])])
    watched = visited()
    watched.wait_for("view.t === 2")
    assert watched.view("counts") == {"held": 1, "prefill": 0, "decode": 1, "gap": 1}


def test_it_connects_again_when_the_server_hangs_up(server: Server, visited: Visited) -> None:
    server.script(say=[LAYOUT, WHOLE])
    watched = visited()
    watched.wait_for("view.numDots === 3")
    other = frame(9.0, 2, whole=True, sessions=SESSIONS[:1])
    server.script(forget=True, hang_up=True, say=[LAYOUT, other])
    watched.wait_for("view.phase === 'open' && view.numDots === 1 && view.t === 9")
    assert watched.page.locator("#notices").inner_text() == ""


def test_a_server_that_is_gone_is_told_and_sought_until_it_is_back(
    server: Server, visited: Visited
) -> None:
    server.script(say=[LAYOUT, WHOLE])
    watched = visited()
    watched.wait_for("view.numDots === 3")
    server.script(status=503, error="32 watch already: close one", hang_up=True)
    watched.wait_for("view.phase === 'waiting'")
    watched.page.get_by_text("32 watch already: close one; trying again").wait_for()
    server.script()
    watched.wait_for("view.phase === 'open' && view.numDots === 3")


def test_it_asks_for_a_key_and_sends_it(server: Server, visited: Visited) -> None:
    server.script(key="sesame", say=[LAYOUT, WHOLE])
    watched = visited()
    dialog = watched.page.locator("#key-dialog")
    assert "this view wants a key" in dialog.inner_text()
    watched.page.fill("#key", "wrong")
    watched.page.keyboard.press("Enter")
    dialog.get_by_text("this view wants a key").wait_for()
    watched.wait_for("view.phase === 'key'")
    watched.page.fill("#key", "sesame")
    watched.page.keyboard.press("Enter")
    watched.wait_for("view.phase === 'open' && view.numDots === 3")
    assert dialog.is_hidden()
    watched.page.reload()
    watched.wait_for("view.numDots === 3")  # the tab keeps it
    assert watched.page.evaluate("Object.values(localStorage).includes('sesame')") is False


def test_a_refusal_says_what_the_server_advises(server: Server, visited: Visited) -> None:
    advice = "the view shows all tenants: start with --dashboard-key-file"
    server.script(status=403, error=advice)
    watched = visited()
    assert advice in watched.page.locator("#key-dialog").inner_text()
    watched.page.keyboard.press("Escape")
    assert "403" in watched.page.locator("#notices").inner_text()
    server.script(say=[LAYOUT, WHOLE])
    watched.page.get_by_role("button", name="Give a key").click()
    watched.page.fill("#key", "x")
    watched.page.keyboard.press("Enter")
    watched.wait_for("view.numDots === 3")


def test_a_newer_protocol_is_told_and_not_asked_for_again(server: Server, visited: Visited) -> None:
    server.script(say=[layout(2, v=2)])
    watched = visited()
    watched.wait_for("view.phase === 'ended'")
    assert "version 2 of the view's protocol" in watched.page.locator("#notices").inner_text()


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("{not json", "a message is no JSON"),
        (frame(2.0, 5), "frame.replicas has 5 entries, and the layout 2 replicas"),
        ({"no": "kind"}, "a message has no kind"),
    ],
)
def test_a_malformed_message_is_told_and_the_state_asked_for_anew(
    server: Server, visited: Visited, message: Any, why: str
) -> None:
    server.script(say=[LAYOUT, WHOLE, message])
    watched = visited()
    watched.page.get_by_text(why).first.wait_for()
    server.script(forget=True, say=[LAYOUT, WHOLE])
    watched.wait_for("view.phase === 'open' && view.numDots === 3")


def test_a_message_of_a_kind_to_come_is_passed_over(server: Server, visited: Visited) -> None:
    server.script(say=[LAYOUT, WHOLE, {"kind": "surprise"}, SENT])
    watched = visited()
    watched.wait_for("view.t === 2 && view.phase === 'open'")
    assert "does not know are left out: surprise" in watched.page.locator("#notices").inner_text()


def test_frozen_it_stands_while_the_rack_goes_on(server: Server, visited: Visited) -> None:
    server.script(say=[LAYOUT, WHOLE])
    watched = visited()
    watched.wait_for("view.numDots === 3")
    watched.page.keyboard.press("Space")
    assert watched.view("isFrozen")
    server.script(say=[SENT])
    watched.page.wait_for_timeout(300)
    assert watched.view("counts")["held"] == 1
    watched.page.keyboard.press("Space")
    watched.wait_for("view.counts.prefill === 1 && view.t === 2")


def test_a_decision_opens_the_receipt_that_the_server_keeps(
    server: Server, visited: Visited
) -> None:
    server.script(say=[LAYOUT, WHOLE, SENT])
    watched = visited()
    watched.wait_for("view.t === 2")
    buttons = watched.page.locator("#decisions button")
    buttons.nth(1).wait_for()
    buttons.nth(1).focus()
    watched.page.keyboard.press("Enter")
    watched.page.locator("#panel .options").wait_for()
    assert watched.page.locator("#panel .chosen").count() == 1
    watched.page.keyboard.press("Escape")
    assert watched.page.evaluate("document.activeElement.textContent").startswith("0:01.6")
    buttons.nth(0).click()
    watched.page.get_by_text("forgotten#7 is no longer kept").wait_for()
