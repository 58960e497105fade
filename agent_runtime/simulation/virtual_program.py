"""Runs somebody's program, as it is, in a virtual world."""

from __future__ import annotations

import asyncio  # noqa: TID251 - the program's loops are made here
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from typing_extensions import override

from agent_runtime.asgi_exchange import AsgiApp
from agent_runtime.garbage import rare_garbage_collection
from agent_runtime.simulation.fresh_modules import fresh_modules
from agent_runtime.simulation.program_entropy import program_entropy
from agent_runtime.simulation.program_http import ProgramHttp
from agent_runtime.simulation.program_time import program_time
from agent_runtime.simulation.replacement import environment, replaced
from agent_runtime.simulation.virtual_clock import VirtualClock
from agent_runtime.simulation.virtual_time import VirtualTimeLoop, World


class VirtualProgram:
    """A place for one program: its loops, clocks, sockets and dice are virtual.

    Asynchronous programs may start any number of asyncio or anyio loops one after the other;
    blocking ones need none. They share one clock and one world.

    Args:
        app: Answers the program's requests to a model.
        world: Moves along with the program.
        clock: Virtual time.
        seed: Of the program's dice.
    """

    def __init__(self, app: AsgiApp, world: World, clock: VirtualClock, seed: int) -> None:
        self._app = app
        self._world = world
        self._clock = clock
        self._seed = seed

    def run(self, script: Path, args: Sequence[str], variables: Mapping[str, str]) -> int:
        """Run a script as ``python SCRIPT ARGS`` would.

        Args:
            script: The file.
            args: What it finds in ``sys.argv``.
            variables: Of the environment, to set for it.

        Returns:
            Its exit code. What it raises is printed as Python prints it, and gives 1.

        Raises:
            KeyboardInterrupt: It was interrupted.
        """
        folder = script.resolve().parent
        argv, path = [str(script), *args], [str(folder), *sys.path]
        with (
            self._world_around(),
            fresh_modules(folder),
            rare_garbage_collection(),
            environment(variables),
            replaced(sys, argv=argv, path=path),
        ):
            return _exit_code(script)

    @contextmanager
    def _world_around(self) -> Iterator[None]:
        idle_loop = self._loop()
        policy = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(_VirtualPolicy(self))
        try:
            with (
                program_entropy(self._seed),
                program_time(self._clock, idle_loop),
                ProgramHttp(self._app, idle_loop).installed(),
            ):
                yield
                _cancel_all(idle_loop)
        finally:
            asyncio.set_event_loop_policy(policy)
            idle_loop.close()

    def _loop(self) -> VirtualTimeLoop:
        return VirtualTimeLoop(clock=self._clock, world=self._world)


class _VirtualPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes every loop of the program a virtual one."""

    def __init__(self, program: VirtualProgram) -> None:
        super().__init__()
        self._program = program

    @override
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return self._program._loop()  # noqa: SLF001 - the two are one


def _cancel_all(loop: VirtualTimeLoop) -> None:
    """Cancel what blocking requests have left behind, e.g. streams not read to their end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def _exit_code(script: Path) -> int:
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)  # noqa: T201 - as Python does
        return 1
    except Exception as error:  # noqa: BLE001 - the program's own; it is shown as Python shows it
        traceback.print_exception(error.with_traceback(_within(script, error.__traceback__)))
        return 1
    return 0


def _within(script: Path, trace: TracebackType | None) -> TracebackType | None:
    """Leave out how the script was started; all of it where the script did not get to start."""
    while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
        trace = trace.tb_next
    return trace
