"""Pictures of the dashboard for the documentation, out of a recording.

``python tools/dashboard_pictures.py RECORDING.html FOLDER --at SECONDS`` writes ``dashboard.png``,
``dashboard_dark.png``, ``dashboard_receipt.png`` and ``dashboard_phone.png``; it needs chromium and
the extra ``browser``.
"""

from __future__ import annotations

import argparse
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools.chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESK = (1360, 850)
PHONE = (390, 844)
SPEED = "10x"
NUM_TRIED = 48


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
            write(page, args.folder / f"{name}.png")
            page.close()
        page = opened(browser, address, "light", DESK, args.at)
        open_receipt(page)
        write(page, args.folder / "dashboard_receipt.png")


def opened(browser: Browser, address: str, scheme: str, size: tuple[int, int], at_s: float) -> Page:
    """Return the page in the midst of the run, as it plays."""
    looks: Any = {"color_scheme": scheme, "device_scale_factor": 1.5}
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **looks)
    page.goto(address)
    page.wait_for_timeout(1_000)
    page.select_option("#speed", label=SPEED)
    scrub = "(s, t) => { s.value = t; s.dispatchEvent(new Event('input')); }"
    page.locator("#scrubber").evaluate(scrub, at_s)
    page.wait_for_timeout(6_500)
    return page


def open_receipt(page: Page) -> None:
    """Open the receipt with the most options to choose from, of the kept ones near by."""
    page.keyboard.press("Space")
    most, best = max((num_options(page, number), number) for number in range(NUM_TRIED))
    if not most:
        raise SystemExit("no receipt is kept near by: choose another --at")
    num_options(page, best)
    page.wait_for_timeout(500)


def num_options(page: Page, number: int) -> int:
    """Open a receipt; return how many options it has."""
    page.keyboard.press("Escape")
    page.locator("#decisions .decision:not(.told)").nth(number // 8).click()
    page.wait_for_timeout(150)
    near = page.locator(".link-list button")
    if near.count() <= number % 8:
        return 0
    near.nth(number % 8).click()
    page.wait_for_timeout(150)
    num_options: int = page.locator("#panel .options tbody tr").count()
    return num_options


def write(page: Page, path: Path) -> None:
    """Write what is seen, in as many colours as a small file has."""
    png = BytesIO(page.screenshot())
    picture = Image.open(png).convert("RGB")
    found: Any = picture.getcolors(picture.width * picture.height) or []
    # The most frequent ones as they are: those between them would tinge whole grounds.
    colours = [colour for _, colour in sorted(found, reverse=True)[:256]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in colours for part in colour])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
