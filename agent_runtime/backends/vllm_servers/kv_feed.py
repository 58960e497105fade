"""Reads one engine's KV events, asks again for those that got lost, and says so where it can't.

ZMQ's publishers drop what a subscriber is too slow for; numbers tell. What is missing is asked for
at the replay endpoint. Where that can't fill the gap, nothing is known of the engine any more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import anyio

from agent_runtime.backends.kv_event_wire import EventBatch, WireEvent, parse_frames
from agent_runtime.backends.vllm_servers.engine_facts import EventSource
from agent_runtime.backends.vllm_servers.event_order import Arrival, EventOrder
from agent_runtime.backends.vllm_servers.kv_event_lines import EventLines, OpenEventLines
from agent_runtime.errors import WireFormatError

REPLAY_S = 5.0
"""How long an engine may take for each batch of a replay; its publisher looks every 0.1 s."""

QUIET_S = 30.0
"""After so long without events an engine is asked for the last ones again: some may have got lost,
or it may have been started again."""

END_OF_REPLAY = -1


class KvFeed:
    """One engine's events.

    Args:
        lines: How they come.
        source: Where they are.
        apply: Takes in events.
        purge: Takes in that nothing is known of the engine any more.
        notice: Told, in words, what went wrong.

    Attributes:
        on_reached: Called once the engine has been heard of: ZMQ itself does not say whether
            anybody is there.
        num_batches, num_gaps, num_purges: So far.
    """

    def __init__(
        self,
        lines: OpenEventLines,
        source: EventSource,
        apply: Callable[[list[WireEvent]], None],
        purge: Callable[[], None],
        notice: Callable[[str], None],
    ) -> None:
        self._open_lines = lines
        self._source = source
        self._apply = apply
        self._purge = purge
        self._notice = notice
        self._order = EventOrder()
        self.on_reached: Callable[[], None] = lambda: None
        self.num_batches = 0
        self.num_gaps = 0
        self.num_purges = 0

    async def run(self, started: anyio.Event) -> None:
        """Read events until cancelled.

        Args:
            started: Set once what the engine published so far is known.

        Raises:
            ConfigError: A package that the lines need is not installed.
            BackendError: The source can't be connected to.
        """
        async with self._open_lines() as lines:
            with lines.subscribed(self._source) as published:
                # First the subscription, then what was before it: nothing falls in between.
                await self._heard(self._catch_up(lines, 0))
                started.set()
                while True:
                    with anyio.move_on_after(QUIET_S) as waiting:
                        message = await published.received()
                    if waiting.cancelled_caught:
                        await self._heard(self._confirm(lines))
                    else:
                        await self._heard(self._take(message, lines))

    async def _heard(self, work: Awaitable[None]) -> None:
        """Take something in; what can't be read leaves nothing known."""
        try:
            await work
        except WireFormatError as error:
            self._forget(f"its KV events can't be read: {error}")
            self._order = EventOrder()

    async def _take(self, message: list[bytes], lines: EventLines) -> None:
        _, sequence, batch = parse_frames(message)
        match self._order.arrival(sequence, batch.ts):
            case Arrival.NEXT:
                self._know(sequence, batch)
            case Arrival.OLD:
                pass
            case Arrival.AFTER_A_GAP:
                self.num_gaps += 1
                await self._catch_up(lines, self._order.expected or 0)
                await self._after_replay(sequence, batch)
            case Arrival.RESTARTED:
                self._forget("it counts its KV events anew")
                self._order.restart()
                await self._catch_up(lines, 0)
                await self._after_replay(sequence, batch)

    async def _after_replay(self, sequence: int, batch: EventBatch) -> None:
        """Take a batch that a replay should have led up to."""
        arrival = self._order.arrival(sequence, batch.ts)
        if arrival is Arrival.AFTER_A_GAP:
            self._forget(f"KV events {self._order.expected} to {sequence - 1} are lost")
        if arrival in {Arrival.NEXT, Arrival.AFTER_A_GAP}:
            self._know(sequence, batch)

    async def _catch_up(self, lines: EventLines, first: int) -> None:
        """Have an engine repeat its batches from ``first`` on, and take them in."""
        async with aclosing(self._repeated(lines, first)) as repeated:
            async for one in repeated:
                if one is None:
                    return
                sequence, batch = one
                if self._order.arrival(sequence, batch.ts) is Arrival.AFTER_A_GAP:
                    self._forget(f"it keeps KV events from {sequence} on only, not from {first}")
                if self._order.arrival(sequence, batch.ts) is not Arrival.OLD:
                    self._know(sequence, batch)

    async def _confirm(self, lines: EventLines) -> None:
        """See that a silent engine is the one it was, and has said no more than was heard."""
        known = self._order.unconfirmed
        answered = is_the_same = False
        async with aclosing(self._repeated(lines, next(iter(known), 0))) as repeated:
            async for one in repeated:
                answered = True
                if one is None:
                    break
                sequence, batch = one
                if self._order.arrival(sequence, batch.ts) is Arrival.NEXT:
                    self._know(sequence, batch)
                is_the_same = known.get(sequence, batch.ts) == batch.ts
                if not is_the_same:
                    break
        if is_the_same:
            self._order.confirmed()
        elif answered and known:
            self._forget("it does not know its last KV events any more")
            self._order.restart()
            await self._catch_up(lines, 0)

    async def _repeated(
        self, lines: EventLines, first: int
    ) -> AsyncGenerator[tuple[int, EventBatch] | None, None]:
        """Have an engine repeat its batches from ``first`` on; None says that these were all.

        There is no None from an engine that does not repeat, or not in time.
        """
        if self._source.replay_endpoint is None:
            return
        with lines.replayed(self._source.replay_endpoint, first) as repeated:
            while True:
                with anyio.move_on_after(REPLAY_S) as waiting:
                    message = await repeated.received()
                if waiting.cancelled_caught:
                    self._notice("it does not repeat its KV events in time")
                    return
                self.on_reached()
                topic, number, payload = message[-3:]
                if int.from_bytes(number, "big", signed=True) == END_OF_REPLAY:
                    yield None
                    return
                _, sequence, batch = parse_frames([topic, number, payload])
                yield sequence, batch

    def _know(self, sequence: int, batch: EventBatch) -> None:
        if not self.num_batches:
            self.on_reached()
        self.num_batches += 1
        self._order.took(sequence, batch.ts)
        self._apply(batch.events)

    def _forget(self, why: str) -> None:
        self.num_purges += 1
        self._notice(f"{why}; what it holds is learned anew")
        self._purge()
