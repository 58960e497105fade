"""What readers of replies share: bytes cut into whole events, text put off, JSON in one piece."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import msgspec

from agent_runtime.errors import WireFormatError
from agent_runtime.event_stream import MAX_EVENT_BYTES
from agent_runtime.undecodable import UNDECODABLE

SEPARATOR = b"\n\n"
MAX_ANSWER_BYTES = 64 << 20
MAX_UNHEARD_BYTES = 64 << 10
"""Events that pass before what they said is put together; keeps a long reply's memory small."""

_DATA = b"data:"
_decode = msgspec.json.Decoder().decode


class WholeEvents:
    """Cuts a stream behind the last whole event.

    Invariant: ``_rest`` is the beginning of an event. It is looked through once, however many
        pieces it comes in.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def take(self, data: bytes) -> bytes:
        """Take in bytes; return the events that they complete.

        Raises:
            WireFormatError: An event of more than 64 MiB.
        """
        rest = self._rest
        if not rest and data.endswith(SEPARATOR):
            return data
        if SEPARATOR not in data and not (data.startswith(b"\n") and rest.endswith(b"\n")):
            rest += data
            if len(rest) > MAX_EVENT_BYTES:
                raise WireFormatError(f"an event of more than {MAX_EVENT_BYTES} bytes")
            return b""
        if rest:
            data = bytes(rest) + data
        end = data.rfind(SEPARATOR) + len(SEPARATOR)
        self._rest = bytearray(data[end:])
        return data[:end]


class Unheard:
    """Events that were passed on, and whose text nobody has put together yet."""

    __slots__ = ("_events", "_num_bytes")

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._num_bytes = 0

    def add(self, events: bytes) -> bool:
        """Add whole events; return whether it is time to take them out."""
        self._events.append(events)
        self._num_bytes += len(events)
        return self._num_bytes > MAX_UNHEARD_BYTES

    def taken_out(self) -> Iterator[dict[str, Any]]:
        """Take all of them out; return their data."""
        events, self._events, self._num_bytes = self._events, [], 0
        for some in events:
            yield from data_of_all(some)


class PassedEvents(ABC):
    """A reply in events with names, all of which pass; its deltas are counted by theirs.

    Args:
        deltas: Finds the name of every event that brings a token.
        speaks_of_more: Finds a name of those that are to be parsed.
    """

    def __init__(self, deltas: re.Pattern[bytes], speaks_of_more: re.Pattern[bytes]) -> None:
        self._cutter = WholeEvents()
        self._deltas, self._speaks_of_more = deltas, speaks_of_more
        self._num_deltas = 0
        self._is_complete = False

    @property
    def is_complete(self) -> bool:
        """Whether its last event has come, or an error."""
        return self._is_complete

    def feed(self, data: bytes) -> bytes:
        """Take in bytes; return the events that they complete.

        Raises:
            WireFormatError: An event of more than 64 MiB.
        """
        events = self._cutter.take(data)
        if events:
            self._num_deltas += sum(1 for _ in self._deltas.finditer(events))
            if self._speaks_of_more.search(events) is not None:
                for event in data_of_all(events):
                    self._take(event)
            self._passed(events)
        return events

    def end(self) -> bytes:
        """Take in that the engine closed the reply; half an event is not passed on."""
        return b""

    @abstractmethod
    def _take(self, event: dict[str, Any]) -> None:
        """Take in the data of an event."""

    @abstractmethod
    def _passed(self, events: bytes) -> None:
        """Take in that these were passed on."""


class WholeAnswer:
    """A reply in one piece of JSON.

    Attributes:
        answer: It; None until all has come.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self.answer: dict[str, Any] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all has come."""
        return self.answer is not None

    def feed(self, data: bytes) -> bytes:
        """Take in bytes; all are passed on.

        Raises:
            WireFormatError: More than 64 MiB in all.
        """
        self._data += data
        if len(self._data) > MAX_ANSWER_BYTES:
            raise WireFormatError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return data

    def end(self) -> bytes:
        """Take in that this was all."""
        self.answer = parsed(self._data)
        return b""


def each(events: bytes) -> list[bytes]:
    """Return whole events one by one, without what separates them."""
    return events.split(SEPARATOR)[:-1]


def data_of_all(events: bytes) -> Iterator[dict[str, Any]]:
    """Return the data of whole events, of those whose data is a JSON object."""
    for event in each(events):
        data = parsed(data_of(event))
        if data is not None:
            yield data


def data_of(event: bytes) -> bytes:
    """Return the data of an event; nothing if it has none."""
    start = 0 if event.startswith(_DATA) else event.find(b"\n" + _DATA) + 1
    return event[start + len(_DATA) :].strip() if event.startswith(_DATA, start) else b""


def parsed(data: bytes | bytearray) -> dict[str, Any] | None:
    """Return a JSON object, None for anything else."""
    try:
        value = _decode(data)
    except UNDECODABLE:
        return None
    return value if isinstance(value, dict) else None
