"""A terminal taken over for pictures, and given back as it was: at the end, and when suspended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from agent_runtime.terminal_view.look import Key
from agent_runtime.terminal_view.screen import Room
from agent_runtime.terminal_view.strokes import ASCII, UNICODE
from agent_runtime.terminal_view.terminal_keys import KeyReader, single_keys

READ_BYTES = 256


def room_of(console: Console, *, whole: bool) -> Room:
    """Return what there is to draw on.

    Args:
        console: Where.
        whole: Whether the picture has to fit the height.
    """
    glyphs = ASCII if console.options.ascii_only else UNICODE
    return Room(console.width, console.height if whole else None, glyphs)


class TopTerminal:
    """Shows pictures on a screen of their own while the context lasts, and reads keys.

    Args:
        console: A terminal.

    Attributes:
        has_keys: Whether keys can be read: standard input is a terminal too.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._taken = ExitStack()
        self._live: Live | None = None
        self.has_keys = sys.stdin.isatty()

    def __enter__(self) -> Self:
        with ExitStack() as taken:
            if self.has_keys:
                taken.enter_context(single_keys(sys.stdin.fileno()))
            self._live = taken.enter_context(
                Live(
                    console=self._console,
                    screen=True,
                    auto_refresh=False,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
            )
            self._taken = taken.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._live = None
        self._taken.close()

    def room(self) -> Room:
        """Return how large it is now."""
        return room_of(self._console, whole=True)

    def show(self, lines: Sequence[Text]) -> None:
        """Replace what is shown."""
        if self._live is not None:
            self._live.update(Group(*lines), refresh=True)

    def suspend(self) -> None:
        """Give the terminal back and stop, as Ctrl-Z does; take it again once continued."""
        self.__exit__()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.__enter__()

    async def keys(self, reader: KeyReader) -> list[Key]:
        """Wait for keys; the terminal's end means to quit."""
        await anyio.wait_readable(sys.stdin)
        data = os.read(sys.stdin.fileno(), READ_BYTES)
        return reader.feed(data) if data else [Key.QUIT]
