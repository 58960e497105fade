"""What lies between the gateway and its engines, and everything that can go wrong with it."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random  # noqa: TID251 - seeded by the plan
from urllib.parse import urlsplit

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from agent_runtime.backends.vllm_servers.engine_facts import EventSource
from agent_runtime.backends.vllm_servers.engine_http import PROBE_S, EngineUnreachableError
from agent_runtime.backends.vllm_servers.kv_event_lines import EventLine
from tests.chaos.sim_engine import Health, SimEngine, SimReply

TOKEN_S = 0.02
CONNECT_S = 5.0
END_OF_REPLAY = (-1).to_bytes(8, "big", signed=True)


@dataclass
class Link:
    """The way to one engine.

    Attributes:
        delay_s: Of everything.
        is_cut: Nothing passes; connections that are open are silent.
        lose_events, repeat_events, swap_events: Of the next KV events, so many.
        stale_s: How late KV events are.
        replays: Whether the engine still repeats its events.
    """

    delay_s: float = 0.001
    is_cut: bool = False
    lose_events: int = 0
    repeat_events: int = 0
    swap_events: int = 0
    stale_s: float = 0.0
    replays: bool = True
    mended: anyio.Event = field(default_factory=anyio.Event)

    def mend(self) -> None:
        """Be well again."""
        self.delay_s, self.is_cut, self.stale_s, self.replays = 0.001, False, 0.0, True
        self.lose_events = self.repeat_events = self.swap_events = 0
        self.mended.set()
        self.mended = anyio.Event()


class SimNetwork:
    """``EngineHttp`` to simulated engines, and ``OpenEventLines`` of their KV events.

    Args:
        engines: At the other end.
        rng: Of delays.
    """

    def __init__(self, engines: list[SimEngine], rng: Random) -> None:
        self._rng = rng
        self._engines = {urlsplit(engine.url).hostname: engine for engine in engines}
        self.links = {engine.number: Link() for engine in engines}
        self._listeners: dict[int, list[MemoryObjectSendStream[tuple[float, list[bytes]]]]] = {}
        for engine in engines:
            engine.on_publish.append(self._published)

    async def get(self, url: str) -> tuple[int, bytes]:
        """See ``EngineHttp``."""
        engine = self._engine(url)
        with anyio.move_on_after(PROBE_S):
            await self._reach(engine)
            return engine.page(urlsplit(url).path)
        raise EngineUnreachableError(f"{url}: no answer within {PROBE_S:g} s", refused=False)

    async def send(
        self,
        method: str,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
    ) -> SimReply:
        """See ``EngineHttp``."""
        engine = self._engine(url)
        if self.links[engine.number].is_cut:
            await anyio.sleep(CONNECT_S)
            raise EngineUnreachableError(f"{url}: no connection", refused=False)
        await self._reach(engine)
        path = urlsplit(url).path
        if method == "GET":
            return engine.answered(*engine.page(path))
        return engine.ask(path, json.loads(body), TOKEN_S)

    def break_connections(self, engine: SimEngine) -> None:
        """Break what is under way to an engine, which notices at once."""
        for reply in list(engine.running):
            reply.break_off("the connection was reset")

    async def _reach(self, engine: SimEngine) -> None:
        """Return when an engine has a request."""
        link, lives = self.links[engine.number], engine.num_lives
        await anyio.sleep(link.delay_s * self._rng.uniform(0.5, 2.0))
        if engine.health is Health.CRASHED:
            raise EngineUnreachableError("connection refused", refused=True)
        while link.is_cut or engine.health is Health.HUNG:
            await anyio.sleep(0.05)
            if engine.num_lives != lives:
                raise EngineUnreachableError("the connection was reset", refused=False)

    def _engine(self, url: str) -> SimEngine:
        return self._engines[urlsplit(url).hostname]

    # KV events.

    @asynccontextmanager
    async def open_event_lines(self) -> "AsyncIterator[SimNetwork]":
        """See ``OpenEventLines``."""
        yield self

    @contextmanager
    def subscribed(self, source: EventSource) -> Iterator[EventLine]:
        """See ``EventLines``."""
        engine = self._engine(source.endpoint)
        send, receive = anyio.create_memory_object_stream[tuple[float, list[bytes]]](100_000)
        listeners = self._listeners.setdefault(engine.number, [])
        listeners.append(send)
        try:
            yield _Published(receive)
        finally:
            listeners.remove(send)
            send.close()
            receive.close()

    @contextmanager
    def replayed(self, endpoint: str, first: int) -> Iterator[EventLine]:
        """See ``EventLines``."""
        engine = self._engine(endpoint)
        yield _Repeated(self, engine, first)

    def _published(self, engine: SimEngine, batch: list[bytes]) -> None:
        link = self.links[engine.number]
        if link.is_cut or engine.health is Health.CRASHED:
            return
        if link.lose_events:
            link.lose_events -= 1
            return
        due_s = anyio.current_time() + link.delay_s + link.stale_s
        num_times = 1
        if link.repeat_events:
            link.repeat_events -= 1
            num_times = 2
        if link.swap_events:
            link.swap_events -= 1
            due_s += 0.2
        for listener in self._listeners.get(engine.number, ()):
            for _ in range(num_times):
                listener.send_nowait((due_s, batch))


class _Published:
    """An ``EventLine``: batches when they are due, whichever was sent first."""

    def __init__(self, batches: MemoryObjectReceiveStream[tuple[float, list[bytes]]]) -> None:
        self._batches = batches
        self._waiting: list[tuple[float, list[bytes]]] = []

    async def received(self) -> list[bytes]:
        while True:
            now_s = anyio.current_time()
            due = [one for one in self._waiting if one[0] <= now_s]
            if due:
                first = min(due, key=lambda one: one[0])
                self._waiting.remove(first)
                await anyio.lowlevel.checkpoint()
                return first[1]
            if not self._waiting:
                self._waiting.append(await self._batches.receive())
                continue
            next_s = min(one[0] for one in self._waiting)
            with anyio.move_on_after(next_s - now_s):
                self._waiting.append(await self._batches.receive())


class _Repeated:
    """An ``EventLine``: a replay."""

    def __init__(self, network: SimNetwork, engine: SimEngine, first: int) -> None:
        self._network, self._engine = network, engine
        self._link = network.links[engine.number]
        self._batches: Iterator[list[bytes]] | None = None
        self._first = first

    async def received(self) -> list[bytes]:
        while self._link.is_cut or not self._link.replays or self._engine.health is not Health.UP:
            await anyio.sleep(0.1)
        if self._batches is None:
            await anyio.sleep(self._link.delay_s)
            self._batches = iter(self._engine.batches[self._first :])
        batch = next(self._batches, None)
        return [b"", b"", END_OF_REPLAY, b""] if batch is None else [b"", *batch]
