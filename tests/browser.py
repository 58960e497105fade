"""Pages in Chromium as the dashboard's tests look at them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from agent_runtime.rack_view.page import dashboard_page
from tests.rack_messages import Message, packed
from tools.chromium import NoBrowserError, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STILL = {"reduced_motion": "reduce"}
LOOK_EVERY_MS, MOST_LOOKS = 50, 600


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Start it; skip the test where it or its driver is not installed."""
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(chromium())
        except NoBrowserError as error:
            pytest.skip(f"{error}; or make test-dashboard")
        yield browser


class Watched:
    """A page, and what went on behind it.

    Attributes:
        page: Playwright's.
        complaints: Errors and warnings of its console, and what it threw.
        requests: Addresses that it asked for.
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, **options}
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(error.message))
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def view(self, path: str) -> Any:
        """Return something of ``window.panjiuView``."""
        return self.page.evaluate(f"window.panjiuView.{path}")

    def wait_for(self, condition: str) -> None:
        """Wait until this holds, where ``view`` is ``window.panjiuView``.

        Playwright's own way evaluates text inside the page, which the page's policy forbids.
        """
        held = f"((view) => Boolean(view && ({condition})))(window.panjiuView)"
        for _ in range(MOST_LOOKS):
            if self.page.evaluate(held):
                return
            self.page.wait_for_timeout(LOOK_EVERY_MS)
        state = self.page.evaluate("JSON.stringify(window.panjiuView).slice(0, 500)")
        raise AssertionError(f"never came to be: {condition}; {state}; {self.complaints}")

    def settle(self) -> None:
        """Wait until no dot is on its way."""
        self.wait_for("view.numDots > 0 && view.numMoving === 0")

    def middle_of(self, session: str) -> tuple[float, float]:
        """Return where a session's dot is, in the window."""
        box = self.page.locator("#stage").bounding_box()
        assert box is not None
        dot = self.view(f"places({json.dumps(session)})")
        return box["x"] + dot["x"], box["y"] + dot["y"]


Opened: TypeAlias = Callable[..., Watched]


@contextmanager
def opened_recordings(browser: Browser, folder: Path) -> Iterator[Opened]:
    """Opens recordings; what they complained of or asked the network for fails the test."""
    pages: list[Watched] = []

    def open_one(messages: list[Message], **options: Any) -> Watched:
        target = folder / f"{len(pages)}.html"
        target.write_text(dashboard_page(packed(messages)), encoding="utf-8")
        watched = Watched(browser, **options)
        pages.append(watched)
        watched.page.goto(target.as_uri())
        watched.wait_for("view.t !== null || view.mode === 'broken'")
        return watched

    yield open_one
    for watched in pages:
        assert watched.complaints == []
        assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []
        watched.context.close()
