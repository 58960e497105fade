"""Programs of the SDK in virtual time, without ``panjiu run``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from typing_extensions import TypeVarTuple, Unpack

from agent_runtime.garbage import rare_garbage_collection
from agent_runtime.simulation.virtual_time import VirtualTimeLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run_virtual(program: Callable[[Unpack[Ts]], Awaitable[T]], *args: *Ts) -> T:
    """Run an async program as ``anyio.run`` does, on a clock that jumps from event to event.

    What it opens with ``Runtime.emulated`` runs in that time, too. Dice are the program's own:
    ``panjiu run --virtual --seed`` makes them repeat, as well as wall clocks.

    Raises:
        VirtualTimeError: It does what can't be simulated, e.g. connects to a host, or waits for
            what can never happen.
    """
    with rare_garbage_collection():
        return anyio.run(program, *args, backend_options={"loop_factory": VirtualTimeLoop})
