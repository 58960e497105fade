"""Several processes, each with a share of the rack, as one command."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import FrameType, TracebackType
from typing import Self, TypeVar

from agent_runtime.cli.emulate_share import EmulatedShare
from agent_runtime.errors import ConfigError, InternalError
from agent_runtime.look_alikes.lateness import LatenessSummary

JOIN_S = 10.0


class ProcessGroup:
    """Runs each share in a process of its own; leaving the context ends them all.

    They are started anew, not forked: each begins with nothing but its share.

    Args:
        shares: One a process.
    """

    def __init__(self, shares: Sequence[EmulatedShare]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=_run, args=(share, theirs, ours), daemon=True)
            self._pipes.append(ours)
            self._processes.append((process, theirs))

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _interrupt)
        for process, theirs in self._processes:
            process.start()
            theirs.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process, _ in self._processes:
            process.terminate()
        for process, _ in self._processes:
            process.join(JOIN_S)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def ready(self) -> list[list[int]]:
        """Wait until all serve; return their ports.

        Raises:
            ConfigError: One can't.
            ChildProcessError: One broke off.
        """
        return [_received(pipe, list) for pipe in self._pipes]

    def wait(self) -> list[LatenessSummary]:
        """Wait until somebody wants them to end, or one ends by itself; return their lateness.

        Raises:
            ChildProcessError: One broke off.
        """
        with suppress(KeyboardInterrupt):
            wait(self._pipes)
        for process, _ in self._processes:
            process.terminate()
        return [_received(pipe, LatenessSummary) for pipe in self._pipes]


T = TypeVar("T")


def _received(pipe: Connection, kind: type[T]) -> T:
    try:
        message = pipe.recv()
    except EOFError:
        raise ChildProcessError(
            "a process of the emulation broke off; what it said, if anything, is above"
        ) from None
    if isinstance(message, Exception):
        raise message
    if not isinstance(message, kind):
        raise InternalError(f"a process of the emulation sent a {type(message).__name__}")
    return message


def _run(share: EmulatedShare, parent: Connection, other_end: Connection) -> None:
    other_end.close()  # or the parent's end would still be open when it is gone
    try:
        share.run(parent)
    except ConfigError as error:
        parent.send(error)
        sys.exit(1)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
