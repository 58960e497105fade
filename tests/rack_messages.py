"""Messages of a rack as a view is told them: made up, plausible, the same every time."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

Message = dict[str, Any]
HELD, PREFILL, DECODE, GAP = range(4)
STATES = ["held", "prefill", "decode", "gap"]
UP, DOWN = 0, 1
_MEAN_STAY_S = (6.0, 1.5, 9.0, 14.0)  # in each state
_ROOM = 24  # turns that a replica runs at once


def layout(num_replicas: int = 32, chips_each: int = 4, **changed: Any) -> Message:
    """A layout in two domains."""
    num_chips = num_replicas * chips_each
    return {
        "kind": "layout",
        "v": 1,
        "title": "Qwen3-235B-A22B on Panjiu AL128",
        "rack": "panjiu-al128",
        "model": "qwen3-235b-a22b",
        "policy": "panjiu",
        "source": "recording",
        "band": "base",
        "speed": 1.0,
        "kv_tokens": 1_340_480,
        "fill": "reported",
        "chips": [{"domain": 2 * chip // num_chips} for chip in range(num_chips)],
        "replicas": [
            {"id": r, "chips": list(range(r * chips_each, (r + 1) * chips_each)), "label": str(r)}
            for r in range(num_replicas)
        ],
        "states": STATES,
        "healths": ["up", "down", "draining", "empty"],
        "series": ["ttft_s", "tpot_s", "jct_s"],
        **changed,
    }


def frame(t: float, num_replicas: int, **changed: Any) -> Message:
    """A frame in which nothing changed, but for what is given."""
    return {
        "kind": "frame",
        "t": t,
        "whole": False,
        "replicas": [[0, 0, 0, 0, UP]] * num_replicas,
        "sessions": [],
        "gone": [],
        "moves": [],
        "latest": [],
        "series": [None, None, None],
        "totals": dict.fromkeys(
            (
                "turns",
                "prompt_tokens",
                "cached_tokens",
                "output_tokens",
                "sessions_closed",
                "refused",
            ),
            0,
        ),
        **changed,
    }


def story(turn: str, session: str, replica: int = 1, t: float = 1.0) -> Message:
    """A turn that was held, then sent to the cheaper of two replicas."""
    costs = dict.fromkeys(
        ("wait_s", "move_s", "load_s", "prefill_s", "crowd_s", "decode_s", "loss_s"), 0.0
    )
    near = {**costs, "replica": replica, "wait_s": 0.25, "prefill_s": 0.5, "ttft_s": 0.75}
    far = {**costs, "replica": replica + 1, "move_s": 2.0, "prefill_s": 1.0, "ttft_s": 3.0}
    shown = {"cached_tokens": 90_000, "dropped_sessions": 1}
    options = [{**far, **shown}, {**near, **shown}]
    return {
        "turn": turn,
        "session": session,
        "prompt_tokens": 120_000,
        "arrived_s": t,
        "dispatched_s": t + 2.0,
        "prefilled_s": t + 3.0,
        "ended_s": t + 9.0,
        "replica": replica,
        "cached_tokens": 90_000,
        "receipts": [
            [t, {"turn": turn, "chosen": None, "due": False, "options": [options[0]]}],
            [t + 2.0, {"turn": turn, "chosen": replica, "due": True, "options": options}],
        ],
    }


def run(
    num_sessions: int, num_replicas: int = 32, num_frames: int = 120, step_s: float = 1.0
) -> Iterator[Message]:
    """A run: the layout, frames of which the first is whole, and stories."""
    rng = np.random.default_rng(7)
    sessions = [_session(index, num_replicas, rng) for index in range(num_sessions)]
    yield layout(num_replicas)
    turns = 0
    told: Message = {}
    for number in range(num_frames):
        t = number * step_s
        moves, latest = [], []
        changed = sessions if number == 0 else [s for s in sessions if s["until"] <= t]
        for session in changed if number else []:
            turns += session["state"] == DECODE
            _go_on(session, t, num_replicas, rng)
            if session["state"] != PREFILL:
                continue
            turn, old = session["turn"], session["home"]
            latest.append([turn, session["id"], session["replica"], t, 0.4, session["context"]])
            if len(told) < 50:
                told[turn] = story(turn, session["id"], session["replica"], t)
            if session["replica"] != old:
                moves.append(
                    [session["id"], old, session["replica"], t, t + 1.5, session["context"]]
                )
        running = [0] * num_replicas
        for session in sessions:
            running[session["replica"]] += session["state"] in (PREFILL, DECODE)
        yield frame(
            t,
            num_replicas,
            whole=number == 0,
            replicas=[
                [min(n, _ROOM), max(0, n - _ROOM), 940, min(930, 30 * n), UP] for n in running
            ],
            sessions=[_row(session) for session in changed],
            moves=moves,
            latest=latest[-50:],
            series=[[0.4 + rng.random() / 5, 3 + 3 * rng.random(), 20], [0.03, 0.09, 20], None],
            totals={
                "turns": turns,
                "prompt_tokens": 90_000 * turns,
                "cached_tokens": 86_000 * turns,
                "output_tokens": 350 * turns,
                "sessions_closed": 0,
                "refused": 0,
            },
        )
    yield {"kind": "stories", "turns": told}


def small_run() -> list[Message]:
    """Two replicas, four sessions of which one is held, a turn with its story."""
    sessions = [
        ["root", DECODE, 0, 50_000, 0.0, "root#1", ""],
        ["child", GAP, 1, 90_000, 0.0, "", "root"],
        ["waits", HELD, -1, 20_000, 0.0, "waits#0", ""],
        ["other", DECODE, 1, 30_000, 0.0, "other#4", ""],
    ]
    latest = [["root#1", "root", 0, 0.0, 0.0, 48_000], ["other#4", "other", 1, 0.0, 2.5, 9_000]]
    return [
        layout(2),
        frame(0.0, 2, whole=True, sessions=sessions, latest=latest),
        frame(5.0, 2, sessions=[["waits", DECODE, 1, 20_000, 4.0, "waits#0", ""]]),
        frame(10.0, 2, gone=["other"]),
        {"kind": "stories", "turns": {"root#1": story("root#1", "root", replica=0)}},
    ]


def states_after(messages: list[Message], number: int | None = None) -> dict[str, int]:
    """Sessions by state after so many frames, as the protocol has it."""
    sessions: dict[str, int] = {}
    for message in [m for m in messages if m["kind"] == "frame"][:number]:
        if message["whole"]:
            sessions = {}
        for gone in message["gone"]:
            sessions.pop(gone, None)
        sessions.update((row[0], row[1]) for row in message["sessions"])
    found = Counter(STATES[state] for state in sessions.values())
    return {state: found[state] for state in STATES}


def packed(messages: list[Message]) -> bytes:
    """The messages as a recording has them: JSON lines, gzipped."""
    return gzip.compress("".join(json.dumps(m) + "\n" for m in messages).encode(), mtime=0)


def _session(index: int, num_replicas: int, rng: np.random.Generator) -> Message:
    replica = int(rng.integers(num_replicas))
    state = int(rng.choice(4, p=[0.04, 0.06, 0.3, 0.6]))
    return {
        "id": f"agent-{index:04d}",
        "state": state,
        "replica": replica,
        "home": replica,
        "context": int(rng.integers(4_000, 180_000)),
        "since": 0.0,
        "until": float(rng.exponential(_MEAN_STAY_S[state])),
        "number": 0,
        "turn": f"agent-{index:04d}#0",
        "parent": f"agent-{index - 1:04d}" if index % 10 == 9 else "",
    }


def _go_on(session: Message, t: float, num_replicas: int, rng: np.random.Generator) -> None:
    session["state"] = (session["state"] + 1) % 4
    session["since"] = session["until"]
    session["until"] = t + float(rng.exponential(_MEAN_STAY_S[session["state"]]))
    if session["state"] == HELD:
        session["number"] += 1
        session["turn"] = f"{session['id']}#{session['number']}"
        session["context"] += 900
    if session["state"] == PREFILL:
        session["home"] = session["replica"]
        if rng.random() < 0.15:
            session["replica"] = int(rng.integers(num_replicas))


def _row(session: Message) -> list[Any]:
    turn = "" if session["state"] == GAP else session["turn"]
    keys = ("id", "state", "replica", "context", "since")
    return [*(session[key] for key in keys), turn, session["parent"]]
