"""KV events by ZMQ: PUB for who listens, ROUTER for who missed some, as vLLM 0.32 does it.

A subscriber that finds a gap in the sequence numbers sends the first one it lacks, eight bytes
big-endian, to the ROUTER (from a DEALER, with an empty frame before it) and gets ``[topic,
sequence, payload]`` for each batch since that is still kept, then one with sequence -1.

pyzmq is in the extra ``engines``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from agent_runtime.backends.kv_event_wire import SEQUENCE_BYTES, EventBatch, frames
from agent_runtime.errors import ConfigError

if TYPE_CHECKING:
    import zmq

MAX_KEPT_BATCHES = 10_000
"""vLLM's default, ``buffer_steps``."""

MAX_KEPT_BYTES = 8 << 20
"""Ours, so that 128 replicas in a process stay below a gigabyte."""

SEND_LIMIT = 100_000
"""Batches kept for a slow subscriber; vLLM's default, ``hwm``."""

END_OF_REPLAY = (-1).to_bytes(SEQUENCE_BYTES, "big", signed=True)
REQUEST_FRAMES = 3
SENT_AT_A_TIME = 256


class ReplayBuffer:
    """The latest messages, oldest first, bounded in number and bytes."""

    def __init__(
        self, max_batches: int = MAX_KEPT_BATCHES, max_bytes: int = MAX_KEPT_BYTES
    ) -> None:
        self._max_batches, self._max_bytes = max_batches, max_bytes
        self._messages: deque[tuple[int, list[bytes]]] = deque()
        self._num_bytes = 0

    def keep(self, sequence: int, message: list[bytes]) -> None:
        """Keep a message; the oldest make room for it."""
        self._messages.append((sequence, message))
        self._num_bytes += len(message[-1])
        while len(self._messages) > self._max_batches or self._num_bytes > self._max_bytes:
            self._num_bytes -= len(self._messages.popleft()[1][-1])

    def since(self, sequence: int) -> list[list[bytes]]:
        """Return the messages kept from this sequence number on."""
        return [message for number, message in self._messages if number >= sequence]


class KvEventPublisher:
    """The two sockets of one replica; a ``BatchPublisher``.

    Args:
        events: A PUB socket, bound.
        replays: A ROUTER socket, bound.
        topic: Of all messages.
    """

    def __init__(
        self, events: zmq.Socket[bytes], replays: zmq.Socket[bytes], topic: str = ""
    ) -> None:
        self._events, self._replays = events, replays
        self._topic = topic
        self._num_sent = 0
        self._buffer = ReplayBuffer()

    def source(self) -> dict[str, object]:
        """Return how to listen, as vLLM's ``/kv_event_sources`` tells it."""
        import zmq  # noqa: PLC0415 - an extra

        return {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": self._events.get_string(zmq.LAST_ENDPOINT),
            "replay_endpoint": self._replays.get_string(zmq.LAST_ENDPOINT),
            "buffer_steps": MAX_KEPT_BATCHES,
            "hwm": SEND_LIMIT,
            "max_queue_size": SEND_LIMIT,
            "topic": self._topic,
        }

    def publish(self, batch: EventBatch) -> None:
        """Send a batch to whoever listens; it never waits, a slow subscriber loses some."""
        message = frames(self._topic, self._num_sent, batch)
        self._events.send_multipart(message)
        self._buffer.keep(self._num_sent, message)
        self._num_sent += 1

    async def answer_replays(self) -> None:
        """Answer who missed something, until cancelled."""
        import zmq  # noqa: PLC0415 - an extra

        while True:
            # The descriptor tells of changes only, so all that is there is read before the wait.
            while int(self._replays.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                await self._answer(self._replays.recv_multipart(zmq.NOBLOCK))
            await anyio.wait_readable(int(self._replays.getsockopt(zmq.FD)))

    async def _answer(self, request: list[bytes]) -> None:
        """Answer one; what is no request gets no answer, as from vLLM."""
        if len(request) != REQUEST_FRAMES or len(request[-1]) != SEQUENCE_BYTES:
            return
        address = [request[0], b""]
        first = int.from_bytes(request[-1], "big")
        for number, message in enumerate(self._buffer.since(first), start=1):
            self._replays.send_multipart([*address, *message])
            if number % SENT_AT_A_TIME == 0:
                await anyio.lowlevel.checkpoint()
        self._replays.send_multipart([*address, b"", END_OF_REPLAY, b""])


@contextmanager
def kv_event_publishers(
    host: str, ports: list[tuple[int, int]], topic: str
) -> Iterator[list[KvEventPublisher]]:
    """Open publishers, one for each pair of ports: events and replays.

    Raises:
        ConfigError: pyzmq is not installed, or a port is taken.
    """
    try:
        import zmq  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "--kv-events-base-port: needs pyzmq: pip install 'panjiu[engines]'"
        ) from None
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, 2 * len(ports) + 1)
        context.setsockopt(zmq.LINGER, 0)
        context.setsockopt(zmq.IPV6, ":" in host)
        publishers = []
        for events_port, replay_port in ports:
            events, replays = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
            events.set_hwm(SEND_LIMIT)
            replays.set_hwm(0)  # answers are bounded by the buffer
            for socket, port in ((events, events_port), (replays, replay_port)):
                try:
                    socket.bind(f"tcp://{f'[{host}]' if ':' in host else host}:{port}")
                except zmq.ZMQError as error:
                    context.destroy()
                    raise ConfigError(
                        f"can't publish KV events on {host}:{port}: {error}; choose another "
                        "--kv-events-base-port or --kv-replay-base-port"
                    ) from error
            publishers.append(KvEventPublisher(events, replays, topic))
        try:
            yield publishers
        finally:
            context.destroy()
