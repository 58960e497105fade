"""Debian's Chromium, driven by playwright: for the dashboard's tests, pictures and benchmark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class NoBrowserError(Exception):
    """There is none, or nothing to drive it with; the message says what to install."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start it, without a window; ``PANJIU_CHROMIUM`` names another than the one on the path.

    Raises:
        NoBrowserError: It is not installed, or playwright is not.
    """
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra
    except ImportError:
        raise NoBrowserError("no playwright: pip install -e '.[browser]'") from None
    program = os.environ.get("PANJIU_CHROMIUM") or shutil.which("chromium")
    if program is None:
        raise NoBrowserError(
            "no chromium: apt-get install chromium, or name one in PANJIU_CHROMIUM"
        )
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()
