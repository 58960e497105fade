"""Pictures of the dashboard for the documentation, out of a recording.

``python tools/dashboard_pictures.py RECORDING.html FOLDER --at SECONDS`` writes ``dashboard.png``,
``dashboard_dark.png``, ``dashboard_receipt.png`` and ``dashboard_phone.png``; needs chromium and the
extra ``browser``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESK = {"width": 1360, "height": 850}
PHONE = {"width": 390, "height": 844}
SPEED = "60x"
MOST_TRIED, GOOD_CHOICE = 64, 5


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, metavar="RECORDING.html")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", type=float, required=True, metavar="SECONDS", help="of the run")
    args = parser.parse_args()
    address = args.recording.resolve().as_uri()
    args.folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, scheme, size in (
            ("dashboard", "light", DESK),
            ("dashboard_dark", "dark", DESK),
            ("dashboard_phone", "light", PHONE),
        ):
            page = opened(browser, address, scheme, size, args.at)
            page.screenshot(path=args.folder / f"{name}.png")
            page.close()
        page = opened(browser, address, "light", DESK, args.at)
        open_receipt(page)
        page.screenshot(path=args.folder / "dashboard_receipt.png")


def opened(browser: Browser, address: str, scheme: str, size: object, at_s: float) -> Page:
    """Return the page in the midst of the run, as it plays."""
    page = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1.5)
    page.goto(address)
    page.wait_for_timeout(1_000)
    page.select_option("#speed", label=SPEED)
    scrub = "(s, t) => { s.value = t; s.dispatchEvent(new Event('input')); }"
    page.locator("#scrubber").evaluate(scrub, at_s)
    page.wait_for_timeout(3_000)
    return page


def open_receipt(page: Page) -> None:
    """Open a receipt with some options to choose from, of the kept ones near by."""
    page.keyboard.press("Space")
    for number in range(MOST_TRIED):
        page.locator("#decisions .decision:not(.told)").nth(number // 8).click()
        others = page.locator(".link-list button")
        if others.count() > number % 8:
            others.nth(number % 8).click()
            page.wait_for_timeout(300)
        if page.locator("#panel .options tbody tr").count() >= GOOD_CHOICE:
            break
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
