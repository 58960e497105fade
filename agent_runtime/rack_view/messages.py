"""What a view of the rack is told, message by message; docs/dashboard.md has the whole protocol.

Times are emulated seconds. Rows are JSON arrays, since a frame has hundreds of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeAlias

import msgspec

VERSION = 1
SERIES = ("ttft_s", "tpot_s", "jct_s")
MAX_LATEST = 50
"""Dispatched turns that a frame tells of."""


class SessionState(IntEnum):
    """What a session does; its number stands in rows, its name in the layout."""

    HELD = 0
    PREFILL = 1
    DECODE = 2
    GAP = 3


class Health(IntEnum):
    """How a replica is; its number stands in rows, its name in the layout."""

    UP = 0
    DOWN = 1
    DRAINING = 2
    EMPTY = 3


STATE_NAMES = tuple(state.name.lower() for state in SessionState)
HEALTH_NAMES = tuple(health.name.lower() for health in Health)


class Chip(msgspec.Struct, frozen=True):
    """A chip and the scale-up domain it is in."""

    domain: int


class PlacedReplica(msgspec.Struct, frozen=True):
    """A replica, the chips it is on, and what people call it."""

    id: int
    chips: tuple[int, ...]
    label: str


class Layout(msgspec.Struct, frozen=True, tag_field="kind", tag="layout"):
    """What is watched; the first message.

    Attributes:
        title: A line for people.
        source: ``emulated``, ``engines`` or ``recording``.
        band: Which machine within what is known; None for real engines.
        speed: Emulated seconds a second.
        kv_tokens: That one replica's KV holds.
        fill: ``reported`` where replicas tell how full their KV is, ``reckoned`` where it was
            reckoned from contexts.
        chips: By id.
        v: Version of the protocol.
        states, healths, series: What numbers and places in frames stand for.
    """

    title: str
    rack: str
    model: str
    policy: str
    source: str
    band: str | None
    speed: float
    kv_tokens: int
    chips: tuple[Chip, ...]
    replicas: tuple[PlacedReplica, ...]
    fill: str = "reported"
    v: int = VERSION
    states: tuple[str, ...] = STATE_NAMES
    healths: tuple[str, ...] = HEALTH_NAMES
    series: tuple[str, ...] = SERIES


class ReplicaRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A replica at one moment.

    Attributes:
        running, waiting: Turns in its batch and in its queue.
        used_permille: Of its KV blocks, those that hold KV.
        active_permille: Those that turns under way hold.
        health: A ``Health``.
    """

    running: int
    waiting: int
    used_permille: int
    active_permille: int
    health: int


class SessionRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A session at one moment.

    Attributes:
        id: Its name.
        state: A ``SessionState``.
        replica: Where it runs, or where it last ran; -1 before it ran anywhere.
        context_tokens: Of the turn under way, or of the last one.
        since_s: When it came into that state.
        turn_id: Of the turn under way, "" in a gap.
        parent_id: The session that started it, "" if none did.
    """

    id: str
    state: int
    replica: int
    context_tokens: int
    since_s: float
    turn_id: str
    parent_id: str


class MoveRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """KV that is copied from one replica to another.

    Attributes:
        session: Whose.
        source, target: The replicas.
        start_s, ready_s: When it began, and when it should be there.
        tokens: How much.
    """

    session: str
    source: int
    target: int
    start_s: float
    ready_s: float
    tokens: int


class LatestRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A turn that was sent to a replica.

    Attributes:
        turn_id, session: Which, and whose.
        replica: Where.
        dispatched_s: When.
        held_s: How long it had waited.
        cached_tokens_expected: Of its prompt, there by the scheduler's reckoning.
    """

    turn_id: str
    session: str
    replica: int
    dispatched_s: float
    held_s: float
    cached_tokens_expected: int


class SeriesPoint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Seconds over the turns or sessions that ended lately: how many, and two percentiles."""

    p50: float
    p99: float
    num: int


class Totals(msgspec.Struct, frozen=True, gc=False):
    """Counts since the beginning.

    Attributes:
        turns: Ended with a token at least.
        prompt_tokens: Of turns that were prefilled.
        cached_tokens: Of those, found in a prefix cache.
        output_tokens: Of turns that ended.
        sessions_closed: That will not return.
        refused: Turns whose context no replica holds.
    """

    turns: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    sessions_closed: int = 0
    refused: int = 0


class Frame(msgspec.Struct, frozen=True, tag_field="kind", tag="frame"):
    """What changed since the frame before; see docs/dashboard.md for how frames are put together.

    Attributes:
        t: When.
        whole: Whether it stands alone: sessions that it doesn't have are gone.
        replicas: By id.
        sessions: That changed.
        gone: Sessions that are not to be shown any more, before ``sessions`` are.
        moves: That began; in a whole frame, those under way too.
        latest: Turns that were sent, the newest last, ``MAX_LATEST`` at the most.
        series: In the order of ``Layout.series``; None where nothing ended.
    """

    t: float
    whole: bool
    replicas: Sequence[ReplicaRow]
    sessions: Sequence[SessionRow]
    gone: Sequence[str]
    moves: Sequence[MoveRow]
    latest: Sequence[LatestRow]
    series: Sequence[SeriesPoint | None]
    totals: Totals


class Story(msgspec.Struct, frozen=True):
    """What became of a turn, and why; times are None where it did not happen.

    Attributes:
        receipts: When, and what was looked at, as the event log has it.
    """

    turn: str
    session: str
    prompt_tokens: int
    arrived_s: float
    dispatched_s: float | None
    prefilled_s: float | None
    ended_s: float | None
    replica: int | None
    cached_tokens: int | None
    receipts: Sequence[tuple[float, Mapping[str, Any]]]


class Stories(msgspec.Struct, frozen=True, tag_field="kind", tag="stories"):
    """Stories of some turns, by their ids; the last message of a recording."""

    turns: Mapping[str, Story]


Message: TypeAlias = Layout | Frame | Stories
_ENCODER = msgspec.json.Encoder()


def encoded(message: Message | Story) -> bytes:
    """Return a message as compact JSON, without the end of the line."""
    return _ENCODER.encode(message)


def told_s(seconds: float) -> float:
    """Return a time to the tenth of a millisecond, which is what a view can show."""
    return round(seconds, 4)
