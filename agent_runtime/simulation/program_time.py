"""Lets a program read virtual time wherever it would read the machine's, and sleep in it."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the program's own loop is asked for
import threading  # noqa: TID251 - other threads keep real time
import time
from collections.abc import Iterator
from contextlib import contextmanager

import time_machine

from agent_runtime.simulation.replacement import replaced
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop

EPOCH_S = 1_767_225_600.0
"""When every virtual run begins: 2026-01-01 00:00 UTC."""


@contextmanager
def program_time(clock: VirtualClock, idle_loop: VirtualTimeLoop) -> Iterator[None]:
    """Give ``time`` and ``datetime`` virtual time until the context is left.

    ``time.sleep`` lets the world go on where no event loop runs, and in jobs for threads; inside a
    loop it blocks the loop, as it does in reality.

    Args:
        clock: The time.
        idle_loop: Runs while a program without a running loop sleeps.
    """
    real_sleep, thread = time.sleep, threading.current_thread()  # noqa: TID251 - to be replaced

    def sleep(seconds: float, /) -> None:
        if threading.current_thread() is not thread:
            real_sleep(seconds)
        elif seconds < 0:
            raise ValueError("sleep length must be non-negative")
        elif clock.job_s is not None:
            clock.sleep_in_job(seconds)
        elif _is_in_a_loop():
            clock.move_to(clock.now_s + seconds)
        else:
            idle_loop.run_until_complete(asyncio.sleep(seconds))

    def reading_s() -> float:
        return clock.reading_s

    def reading_ns() -> int:
        return round(clock.reading_s * 1e9)

    with (
        time_machine.travel(EPOCH_S, tick=False) as traveller,
        replaced(
            time,
            sleep=sleep,
            monotonic=reading_s,
            perf_counter=reading_s,
            monotonic_ns=reading_ns,
            perf_counter_ns=reading_ns,
        ),
    ):
        clock.on_move = lambda now_s: traveller.move_to(EPOCH_S + now_s)
        try:
            yield
        finally:
            clock.on_move = None


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
