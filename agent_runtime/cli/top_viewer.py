"""``panjiu top`` while it runs: messages in, pictures out, keys and signals in between."""

from __future__ import annotations

import signal

import anyio
from rich.console import Console

from agent_runtime.cli.top_terminal import TopTerminal
from agent_runtime.rack_view.messages import Frame
from agent_runtime.terminal_view.connection import Connection
from agent_runtime.terminal_view.look import Key, Look
from agent_runtime.terminal_view.rack_state import RackPicture, WatchedRack
from agent_runtime.terminal_view.screen import draw
from agent_runtime.terminal_view.terminal_keys import KeyReader
from agent_runtime.terminal_view.view_client import ViewClient, follow
from agent_runtime.terminal_view.view_messages import read_message


class TopViewer:
    """Shows a rack until its viewer has had enough.

    Args:
        client: Of the server.
        console: A terminal.
        interval_s: Between pictures, unless a key wants one.
    """

    def __init__(self, client: ViewClient, console: Console, interval_s: float) -> None:
        self._client = client
        self._terminal = TopTerminal(console)
        self._interval_s = interval_s
        self._rack = WatchedRack()
        self._connection = Connection()
        self._look = Look()
        self._shown: RackPicture | None = None
        self._first = anyio.Event()
        self._wake = anyio.Event()

    async def run(self) -> None:
        """Show it until q, Ctrl-C or SIGTERM.

        Raises:
            ConfigError: The server wants another key.
            BackendError: There is no server, or it has no view.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._heed_signals, tasks.cancel_scope)
            tasks.start_soon(follow, self._client, self._take, self._told)
            await self._first.wait()
            with self._terminal:
                if self._terminal.has_keys:
                    tasks.start_soon(self._heed_keys, tasks.cancel_scope)
                await self._draw_again_and_again()

    def _take(self, data: bytes) -> None:
        message = read_message(data)
        if message is not None:
            self._rack.take(message)
            if isinstance(message, Frame):
                self._first.set()

    def _told(self, connection: Connection) -> None:
        self._connection = connection
        self._wake.set()

    async def _draw_again_and_again(self) -> None:
        while True:
            self._draw()
            with anyio.move_on_after(self._interval_s):
                await self._wake.wait()
            self._wake = anyio.Event()

    def _draw(self) -> None:
        if not self._look.frozen or self._shown is None:
            self._shown = self._rack.picture() or self._shown
        if self._shown is not None:
            screen = draw(self._shown, self._look, self._connection, self._terminal.room())
            self._look = screen.look
            self._terminal.show(screen.lines)

    async def _heed_keys(self, scope: anyio.CancelScope) -> None:
        reader = KeyReader()
        while True:
            for key in await self._terminal.keys(reader):
                if key is Key.QUIT:
                    scope.cancel()
                self._look = self._look.after(key)
            self._wake.set()

    async def _heed_signals(self, scope: anyio.CancelScope) -> None:
        heeded = (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP, signal.SIGWINCH)
        with anyio.open_signal_receiver(*heeded) as signals:
            async for number in signals:
                if number in {signal.SIGINT, signal.SIGTERM}:
                    scope.cancel()
                elif number == signal.SIGTSTP:
                    self._terminal.suspend()
                self._wake.set()
