"""Keys of a terminal, one at a time: the mode it has to be in, and what its bytes mean."""

from __future__ import annotations

import re
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from agent_runtime.terminal_view.look import Key

_MEANINGS = {
    b"q": Key.QUIT,
    b"Q": Key.QUIT,
    b"s": Key.SORT,
    b" ": Key.FREEZE,
    b"\t": Key.NEXT_PANEL,
    b"j": Key.DOWN,
    b"k": Key.UP,
    b"g": Key.TOP,
    b"\x1b[A": Key.UP,
    b"\x1b[B": Key.DOWN,
    b"\x1bOA": Key.UP,
    b"\x1bOB": Key.DOWN,
    b"\x1b[H": Key.TOP,
}
_WHOLE = re.compile(rb"\x1b(?:\[[0-9;?]*[@-~]|O[@-~])|[^\x1b]", re.DOTALL)
_BEGUN = re.compile(rb"\x1b(?:\[[0-9;?]*|O)?\Z")
_LOCAL_MODES, _CONTROL_CHARACTERS = 3, 6


class KeyReader:
    """Takes bytes as they come, gives keys; those without a meaning are passed over.

    Invariant: ``_rest`` is the beginning of an escape sequence, or nothing.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Key]:
        """Return the keys that are whole now."""
        data, self._rest = self._rest + data, b""
        keys: list[Key] = []
        place = 0
        while place < len(data):
            found = _WHOLE.match(data, place)
            if found is None:
                if _BEGUN.match(data, place):
                    self._rest = data[place:]
                    break
                place += 1  # an escape by itself
                continue
            place = found.end()
            key = _MEANINGS.get(found.group())
            if key is not None:
                keys.append(key)
        return keys


@contextmanager
def single_keys(terminal: int) -> Iterator[None]:
    """Have a terminal give keys at once and show none of them, while the context lasts.

    Ctrl-C and Ctrl-Z stay signals.

    Args:
        terminal: Its file descriptor.
    """
    before = termios.tcgetattr(terminal)
    mode = termios.tcgetattr(terminal)
    mode[_LOCAL_MODES] &= ~(termios.ICANON | termios.ECHO)
    mode[_CONTROL_CHARACTERS][termios.VMIN] = 1
    mode[_CONTROL_CHARACTERS][termios.VTIME] = 0
    termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
