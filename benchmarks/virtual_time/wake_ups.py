"""What a sleeping task's wake-up costs in virtual time.

    python -m benchmarks.virtual_time.wake_ups

Tasks sleep side by side for different times; the same on asyncio's own loop, sleeping 0 s so that
it never waits, is the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable

import anyio

from agent_runtime.simulation.virtual_time import VirtualTimeLoop


def wake_up_us(
    num_tasks: int,
    num_sleeps: int,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    sleep_s: float,
) -> float:
    """Return microseconds of wall time a wake-up."""

    async def sleeper(order: int) -> None:
        for _ in range(num_sleeps):
            await anyio.sleep(sleep_s * (1 + order / num_tasks))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for order in range(num_tasks):
                tasks.start_soon(sleeper, order)

    began_s = time.perf_counter()
    anyio.run(main, backend_options={"loop_factory": loop_factory})
    return (time.perf_counter() - began_s) / (num_tasks * num_sleeps) * 1e6


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--sleeps", type=int, default=200)
    args = parser.parse_args()
    virtual_us = wake_up_us(args.tasks, args.sleeps, VirtualTimeLoop, 1.0)
    floor_us = wake_up_us(args.tasks, args.sleeps, asyncio.SelectorEventLoop, 0.0)
    print(f"{args.tasks} tasks x {args.sleeps} sleeps")
    print(f"virtual time    {virtual_us:6.1f} us a wake-up")
    print(f"asyncio, 0 s    {floor_us:6.1f} us a wake-up ({virtual_us / floor_us:.1f} times)")


if __name__ == "__main__":
    main()
