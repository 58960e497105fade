"""Gives up calls whose server has been silent for too long: one task for all of them.

A deadline a call would be set anew at every chunk, which costs more than reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from agent_runtime.load_test.call_errors import CallFailedError, ErrorKind

CHECKS_A_TIMEOUT = 20
LONGEST_PAUSE_S = 1.0


class WatchedCall:
    """A call under way.

    Attributes:
        heard_s: When the server last sent anything, or the call began.
        is_given_up: Whether it was silent for too long.
    """

    __slots__ = ("heard_s", "is_given_up", "scope")

    def __init__(self, now_s: float, scope: anyio.CancelScope) -> None:
        self.heard_s = now_s
        self.is_given_up = False
        self.scope = scope


class SilenceWatch:
    """Watches calls.

    Args:
        now_s: The time.
        timeout_s: The longest silence; it may be exceeded by a twentieth, or a second.

    Invariant: ``_calls`` are those under way, in the order in which they began.
    """

    def __init__(self, now_s: Callable[[], float], timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._now_s = now_s
        self._calls: dict[WatchedCall, None] = {}

    @property
    def num_calls(self) -> int:
        """How many are under way."""
        return len(self._calls)

    @contextmanager
    def watched(self) -> Iterator[WatchedCall]:
        """Watch a call while the context lasts; given up, the context just ends."""
        with anyio.CancelScope() as scope:
            call = WatchedCall(self._now_s(), scope)
            self._calls[call] = None
            try:
                yield call
            finally:
                del self._calls[call]

    def check(self, call: WatchedCall, num_tokens: int) -> None:
        """Refuse a call that was given up.

        Args:
            call: That is over.
            num_tokens: Of its reply had come.

        Raises:
            CallFailedError: It was.
        """
        if call.is_given_up:
            raise CallFailedError(
                ErrorKind.TIMEOUT,
                f"the server sent nothing for {self.timeout_s:g} s, after {num_tokens} tokens",
            )

    async def run(self) -> None:
        """Give up calls until cancelled."""
        pause_s = min(LONGEST_PAUSE_S, self.timeout_s / CHECKS_A_TIMEOUT)
        while True:
            await anyio.sleep(pause_s)
            since_s = self._now_s() - self.timeout_s
            for call in self._calls:
                if call.heard_s < since_s:
                    call.is_given_up = True
                    call.scope.cancel()
