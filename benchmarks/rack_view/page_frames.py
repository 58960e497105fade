"""What a picture of the dashboard's page costs, and how many it makes a second.

``python -m benchmarks.rack_view.page_frames [--sessions N] [--seconds S] [RECORDING.html]`` plays a
run in Chromium without a GPU and prints the script's milliseconds a picture (the whole call of
``requestAnimationFrame``: applying frames, moving and painting) and pictures a second. Without a
recording it makes one up: 32 replicas of 4 chips, a frame of the stream each half second.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from agent_runtime.rack_view.page import dashboard_page
from tests.rack_messages import packed, run
from tools.chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", nargs="?", type=Path, metavar="RECORDING.html")
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=20, help="to look at it")
    args = parser.parse_args()
    with TemporaryDirectory() as folder, chromium() as browser:
        path = args.recording or Path(folder) / "made_up.html"
        if args.recording is None:
            messages = list(run(args.sessions, num_frames=600))
            path.write_text(dashboard_page(packed(messages)), encoding="utf-8")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.resolve().as_uri())
        page.wait_for_timeout(2_000)
        if args.recording is None:
            page.evaluate(SPEED_2X)
        page.wait_for_timeout(2_000)  # so that loading it does not count
        report(page, args.seconds)


SPEED_2X = """() => {
  const select = document.querySelector("#speed");
  select.append(new Option("2x", 2));
  select.value = 2;
  select.dispatchEvent(new Event("change"));
}"""


def report(page: Page, seconds: int) -> None:
    """Print what the page tells of itself over some seconds."""
    costs_ms: list[float] = []
    rates: list[float] = []
    for _ in range(seconds // 2):
        page.wait_for_timeout(2_000)  # for which the page keeps them
        costs_ms += page.evaluate("window.panjiuView.frameCosts")
        rates.append(page.evaluate("window.panjiuView.fps"))
    dots = page.evaluate("window.panjiuView.numDots")
    p50, p95, p99 = np.percentile(costs_ms, [50, 95, 99])
    print(f"{dots} sessions, {len(costs_ms)} pictures of 1280 x 800, no GPU")
    print(f"script a picture: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms")
    print(f"pictures a second: median {np.median(rates):.0f}, least {min(rates):.0f}")


if __name__ == "__main__":
    main()
