"""What is alive in a process, by kind: counted by the process itself when a signal tells it to."""

from __future__ import annotations

import gc
import json
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OURS = ("agent_runtime.", "scheduler.", "hw_model.")
BLOCKS = "blocks"
"""Of Python's allocator: all small objects, those too that no garbage collector knows."""
SIZED = (dict, list, set, frozenset, deque, bytearray)


def listen_for_censuses(path: Path) -> None:
    """Have this process write a census to a file whenever it gets SIGUSR1."""

    def take(_number: int, _frame: object) -> None:
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(census()))
        unfinished.replace(path)

    signal.signal(signal.SIGUSR1, take)


def census() -> dict[str, int]:
    """Count objects by their types, and the entries of what our own objects hold, by attribute."""
    gc.unfreeze()
    gc.collect()
    alive = gc.get_objects()
    counts: Counter[str] = Counter(
        f"{type(one).__module__}.{type(one).__qualname__}" for one in alive
    )
    for one in alive:
        kind = type(one)
        if str(kind.__module__).startswith(OURS):
            for name, value in _attributes(one):
                if isinstance(value, SIZED):
                    counts[f"{kind.__module__}.{kind.__qualname__}.{name}[]"] += len(value)
    del alive
    counts[BLOCKS] = sys.getallocatedblocks()
    gc.freeze()
    return dict(counts)


def _attributes(one: object) -> Iterator[tuple[str, Any]]:
    for kind in type(one).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            mangled = f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") else name
            value = getattr(one, mangled, None)
            if value is not None:
                yield name, value
    yield from getattr(one, "__dict__", {}).items()
