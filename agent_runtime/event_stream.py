"""Server-sent events from the bytes of a response: what chat APIs use of the format.

Source: WHATWG HTML, section 9.2 "Server-sent events". Only ``data`` is of interest here; other
fields and comments are passed over.
"""

from __future__ import annotations

import re

from agent_runtime.errors import WireFormatError

MAX_EVENT_BYTES = 64 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventStreamParser:
    """Takes bytes as they come, gives the data of whole events.

    Invariant: ``_rest`` is the beginning of a line, which is looked through once, however many
        pieces it comes in; ``_data`` the data lines of an event not ended.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._num_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take in a chunk; return the data of the events that it ends.

        Raises:
            WireFormatError: An event of more than 64 MiB.
        """
        may_end = self._rest.endswith(b"\r") or _LINE_END.search(chunk) is not None
        self._rest += chunk
        if not may_end:
            self._check_size()
            return []
        text = bytes(self._rest)
        held_back = text.endswith(b"\r")  # a line feed may follow in the next chunk
        lines = _LINE_END.split(text[:-1] if held_back else text)
        self._rest = bytearray(lines.pop() + (b"\r" if held_back else b""))
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._num_bytes += len(line)
            elif line == b"data":
                self._data.append(b"")
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data, self._num_bytes = [], 0
        self._check_size()
        return events

    def _check_size(self) -> None:
        if self._num_bytes + len(self._rest) > MAX_EVENT_BYTES:
            raise WireFormatError(f"an event of more than {MAX_EVENT_BYTES} bytes")
