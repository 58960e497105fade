"""The dashboard's page as a browser runs it, with a recording inside. ``make test-dashboard``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import STILL, Opened
from tests.rack_messages import DECODE, STATES, Message, frame, layout, run, small_run, states_after

if TYPE_CHECKING:
    pass


def test_it_shows_the_state_of_the_frame_that_time_is_at(opened: Opened) -> None:
    messages = list(run(200, num_frames=40))
    watched = opened(messages, **STILL)
    assert watched.view("counts") == states_after(messages, 1)
    watched.page.keyboard.press("End")
    assert watched.view("t") == 39
    assert watched.view("counts") == states_after(messages)
    shown = {name: watched.page.locator(f"#strip dt:text-is('{name}') + dd") for name in STATES}
    assert {n: int(v.inner_text()) for n, v in shown.items()} == states_after(messages)
    watched.page.evaluate("document.querySelector('#scrubber').focus()")
    watched.page.locator("#scrubber").evaluate(
        "(s) => { s.value = 20.5; s.dispatchEvent(new Event('input')); }"
    )
    assert watched.view("counts") == states_after(messages, 21)


def test_time_goes_on_stands_and_jumps(opened: Opened) -> None:
    watched = opened(list(run(50, num_frames=100)))
    assert watched.view("isPlaying")
    watched.wait_for("view.t > 3")
    watched.page.keyboard.press("Space")
    assert not watched.view("isPlaying")
    stood = watched.view("t")
    watched.page.keyboard.press("PageDown")
    assert stood + 9 <= watched.view("t") <= stood + 11
    watched.page.keyboard.press("Home")
    assert watched.view("t") == 0
    watched.page.select_option("#speed", label="300x")
    watched.page.keyboard.press("Space")
    watched.wait_for("view.t === 99 && !view.isPlaying")
    watched.page.keyboard.press("Space")
    watched.wait_for("view.isPlaying && view.t < 99")


def test_playing_comes_to_the_same_state_as_jumping(opened: Opened) -> None:
    messages = list(run(120, num_frames=60))
    watched = opened(messages)
    watched.page.select_option("#speed", label="60x")
    watched.wait_for("view.t === 59 && !view.isPlaying")
    assert watched.view("counts") == states_after(messages)
    watched.settle()
    assert watched.view("numDots") == sum(states_after(messages).values())


def test_a_session_that_is_pressed_opens_the_receipt_of_its_turn(opened: Opened) -> None:
    watched = opened(small_run(), **STILL)
    watched.settle()
    watched.page.mouse.click(*watched.middle_of("root"))
    panel = watched.page.locator("#panel")
    rows = panel.locator(".options tbody tr")
    assert rows.count() == 2
    first = rows.first.inner_text().split("\t")
    assert first[0].startswith("0")
    assert "chosen" in first[0]
    assert first[1].strip() == "750 ms"
    assert rows.nth(1).locator(".all").inner_text().strip() == "3.00 s"
    bars = panel.locator(".bars dd")
    assert [bars.nth(i).inner_text() for i in range(2)] == ["750 ms", "1.00 s"]
    panel.locator("select").select_option(index=0)
    assert "Held: none of these" in panel.inner_text()
    watched.page.keyboard.press("Escape")
    assert panel.is_hidden()


def test_a_turn_without_a_receipt_says_so_and_offers_those_that_are_kept(opened: Opened) -> None:
    watched = opened(small_run(), **STILL)
    watched.page.locator("#decisions button").first.click()
    panel = watched.page.locator("#panel")
    assert "receipts of 1 turns, and not of this one" in panel.inner_text()
    assert "held for 2.50 s, then sent to replica 1" in panel.inner_text()
    panel.locator(".link-list button").click()
    assert watched.page.locator("#panel-title").inner_text() == "Turn root#1"


def test_a_session_glides_from_the_queue_to_its_replica(opened: Opened) -> None:
    watched = opened(small_run(), **STILL)
    watched.settle()
    queued = watched.view("places('waits')")
    assert queued["shown"] == "held"
    watched.page.emulate_media(reduced_motion="no-preference")
    watched.page.keyboard.press("End")
    watched.wait_for("view.numMoving > 0")
    watched.settle()
    there = watched.view("places('waits')")
    home = watched.view("frames")[1]
    assert home["y"] < there["y"] < home["y"] + home["h"]
    assert home["x"] < there["x"] < home["x"] + home["w"]
    assert there["shown"] == "decode"
    assert queued["y"] < home["y"]


def test_a_pull_is_an_arrow_for_as_long_as_it_takes_to_be_seen(opened: Opened) -> None:
    messages = small_run()
    messages[2]["moves"] = [["waits", 0, 1, 4.0, 4.2, 20_000]]
    watched = opened(messages)
    watched.page.select_option("#speed", label="10x")
    watched.wait_for("view.numArrows === 1")
    watched.wait_for("view.numArrows === 0")


def test_names_are_text_and_nothing_else(opened: Opened) -> None:
    hostile = '<img src=x onerror="window.caught = 1"><script>window.caught = 1</script>'
    messages = small_run()
    messages[0]["title"] = messages[0]["replicas"][0]["label"] = hostile
    messages[1]["sessions"].append([hostile, DECODE, 0, 1_000, 0.0, f"{hostile}#0", hostile])
    messages[1]["latest"].append([f"{hostile}#0", hostile, 0, 0.0, 0.0, 1])
    watched = opened(messages, **STILL)
    assert watched.page.locator("#title").inner_text() == hostile
    watched.page.locator("#decisions button").first.click()
    assert hostile in watched.page.locator("#panel").inner_text()
    watched.page.keyboard.press("Escape")
    watched.page.focus("#stage")
    watched.page.keyboard.press("Enter")
    assert watched.page.locator(".session-list button").count() == 2
    watched.settle()
    watched.page.mouse.move(*watched.middle_of(hostile))
    assert hostile in watched.page.locator("#tip").inner_text()
    assert watched.page.evaluate("window.caught") is None


def test_a_message_that_is_malformed_is_told_and_left_out(opened: Opened) -> None:
    messages = small_run()
    messages.insert(2, frame(2.0, 3))
    messages.insert(3, frame(3.0, 2, sessions=[["x", 9, 0, 1, 0.0, "", ""]]))
    watched = opened(messages, **STILL)
    told = watched.page.locator("#notices").inner_text()
    assert "frame.sessions[0] has an unknown state" in told
    watched.page.keyboard.press("End")
    assert watched.view("counts") == states_after(small_run())


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (
            [layout(2, v=2), frame(0.0, 2)],
            "version 2 of the view's protocol and this page version 1",
        ),
        ([layout(2)], "no frames"),
        ([frame(0.0, 2)], "a frame came before the layout"),
    ],
)
def test_a_recording_that_cannot_be_shown_says_why(
    opened: Opened, messages: list[Message], why: str
) -> None:
    watched = opened(messages)
    assert why in watched.page.locator("#notices").inner_text()
    assert watched.page.locator("#status-word").inner_text() == "Unreadable"


def engines() -> dict[str, Any]:
    urls = [f"http://host-{n}.a-long-name.example:8000" for n in range(3)] + ["", ""]  # two free
    return layout(
        5, 1, source="engines", band=None, chips=[{"domain": 0}] * 5,
        replicas=[{"id": n, "chips": [n], "label": url} for n, url in enumerate(urls)],
    )  # fmt: skip


def spare_chips() -> dict[str, Any]:
    whole = layout(32)
    return {**whole, "replicas": whole["replicas"][:4]}


@pytest.mark.parametrize("width", [360, 1280, 3840])
@pytest.mark.parametrize(
    "rack", [layout(128, 1), layout(1, 128), layout(8, 16), engines(), spare_chips()],
    ids=["128x1", "1x128", "8x16", "engines", "spare"],
)  # fmt: skip
def test_any_rack_has_its_place_at_any_width(
    opened: Opened, rack: dict[str, Any], width: int
) -> None:
    number = len(rack["replicas"])
    sessions = [[f"s{n}", n % 4, n % number, 1_000 * n, 0.0, "", ""] for n in range(300)]
    messages = [rack, frame(0.0, number, whole=True, sessions=sessions)]
    watched = opened(messages, viewport={"width": width, "height": width * 5 // 8 + 300}, **STILL)
    watched.settle()
    assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = watched.page.locator("#stage").bounding_box()
    assert box is not None
    frames = watched.view("frames")
    assert len(frames) == sum(replica["label"] != "" for replica in rack["replicas"])
    for index, one in enumerate(frames):
        assert one["x"] >= 0
        assert one["x"] + one["w"] <= box["width"] + 0.5
        assert one["y"] >= 0
        assert one["y"] + one["h"] <= box["height"] + 0.5
        for other in frames[index + 1 :]:
            apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert apart_x or apart_y


def test_a_thousand_sessions_are_all_drawn_and_time_goes_on(opened: Opened) -> None:
    watched = opened(list(run(1_000)))
    assert watched.view("numDots") == 1_000
    watched.wait_for("view.t > 5 && view.frameCosts.length > 20")
    assert watched.view("fps") > 1
    home = {row["replica"]: row for row in watched.view("frames")}
    watched.page.keyboard.press("Space")
    watched.settle()
    for number in range(0, 1_000, 50):
        dot = watched.view(f"places('agent-{number:04d}')")
        if dot["session"]["state"] != "held":
            at = home[dot["session"]["replica"]]
            assert at["x"] <= dot["x"] <= at["x"] + at["w"]
            assert at["y"] <= dot["y"] <= at["y"] + at["h"]
