"""Garbage collection while thousands of sessions live: rarer, since it visits them all in vain.

What a turn leaves behind is mostly freed by its reference counts.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = 50_000, 20, 100
"""Python's own are 700, 10, 10."""


def collect_garbage_rarely() -> None:
    """Collect less often from now on, and leave alone what is there already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Collect less often while the context lasts."""
    before = gc.get_threshold()
    collect_garbage_rarely()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
