"""The dashboard's page for everybody: keys, words instead of pictures, contrast, no motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser import STILL, Opened
from tests.rack_messages import run, small_run

if TYPE_CHECKING:
    pass


def test_the_keyboard_walks_the_replicas_and_opens_one(opened: Opened) -> None:
    watched = opened(list(run(100)), **STILL)
    page = watched.page
    page.focus("#stage")
    page.keyboard.press("ArrowRight")
    assert watched.view("focused").startswith("Replica 1:")
    page.keyboard.press("ArrowDown")
    below = page.get_attribute("#stage", "aria-activedescendant")
    assert below not in ("replica-1", None)
    option = page.locator(f"#{below}")
    assert option.get_attribute("role") == "option"
    assert "running" in str(option.text_content())
    page.keyboard.press("Enter")
    assert page.locator("#panel-title").inner_text() == f"Replica {str(below)[8:]}"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "stage"


def test_every_control_is_reached_by_tab(opened: Opened) -> None:
    watched = opened(small_run(), **STILL)
    reached = []
    for _ in range(14):
        watched.page.keyboard.press("Tab")
        reached.append(
            watched.page.evaluate("document.activeElement.id || document.activeElement.className")
        )
    for control in ("as-table", "theme", "help-button", "stage", "play", "scrubber", "speed"):
        assert control in reached
    assert any("decision" in name for name in reached)


def test_help_opens_with_a_question_mark(opened: Opened) -> None:
    watched = opened(small_run(), **STILL)
    watched.page.keyboard.press("?")
    assert watched.page.locator("#help").is_visible()
    watched.page.keyboard.press("Escape")
    assert watched.page.locator("#help").is_hidden()


def test_the_table_says_what_the_picture_shows(opened: Opened) -> None:
    messages = list(run(100, num_frames=3))
    watched = opened(messages, **STILL)
    watched.page.keyboard.press("t")
    rows = watched.page.locator("#replica-rows tr")
    assert rows.count() == 32
    running, waiting, used, active, _ = messages[1]["replicas"][5]
    cells = rows.nth(5).inner_text().split("\t")
    assert cells[:6] == ["5", "up", str(running), str(waiting), "94 %", f"{active / 10:.0f} %"]
    assert used == 940
    assert watched.page.locator("#rack").is_hidden()


def test_those_who_do_not_see_it_are_told(opened: Opened) -> None:
    watched = opened(small_run(), **STILL)
    summary = watched.page.locator("#summary")
    assert summary.get_attribute("aria-live") == "polite"
    said = str(summary.text_content())
    assert "sessions 1 held, 0 prefill, 2 decode, 1 gap" in said
    assert "2 of 2 replicas up" in said


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_dark_where_the_system_is_and_when_asked(opened: Opened, scheme: str) -> None:
    watched = opened(small_run(), color_scheme=scheme, **STILL)
    assert watched.view("isDark") == (scheme == "dark")
    background = "getComputedStyle(document.body).backgroundColor"
    at_first = watched.page.evaluate(background)
    for _ in range(2 if scheme == "light" else 1):  # as the system has it, light, dark
        watched.page.click("#theme")
    assert watched.view("isDark") == (scheme == "light")
    assert watched.page.evaluate(background) != at_first


def test_words_can_be_read_on_their_grounds(opened: Opened) -> None:
    for scheme in ("light", "dark"):
        watched = opened(small_run(), color_scheme=scheme, **STILL)
        for ink in ("ink", "muted", "accent", "held-ink", "bad"):
            for ground in ("card", "page", "tint", "warn"):
                if ground == "warn" and ink != "ink":
                    continue
                ratio = watched.page.evaluate(CONTRAST, [ink, ground])
                assert ratio >= 4.5, (scheme, ink, ground, ratio)
        assert watched.page.evaluate(CONTRAST, ["on-accent", "accent"]) >= 4.5


CONTRAST = """([ink, ground]) => {
  const probe = document.createElement("i");
  document.body.append(probe);
  const light = (name) => {
    probe.style.color = `var(--${name})`;
    const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3);
    const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const [a, b] = [light(ink), light(ground)];
  probe.remove();
  return Math.max(a, b) / Math.min(a, b);
}"""


def test_nothing_moves_by_itself_where_motion_is_not_wanted(opened: Opened) -> None:
    watched = opened(small_run(), **STILL)
    assert not watched.view("isPlaying")
    watched.page.keyboard.press("End")
    watched.page.evaluate("new Promise(requestAnimationFrame)")
    watched.page.evaluate("new Promise(requestAnimationFrame)")
    assert watched.view("numMoving") == 0
