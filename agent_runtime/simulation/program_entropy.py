"""Makes what a program takes for random the same in every run with the same seed."""

from __future__ import annotations

import os
import random  # noqa: TID251 - the program's, to be seeded
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from agent_runtime.simulation.replacement import replaced


@contextmanager
def program_entropy(seed: int) -> Iterator[None]:
    """Seed ``random`` and numpy's global generator, and draw ``os.urandom`` from the seed too.

    So ``uuid4`` and ``secrets`` repeat: nothing here is fit for secrets. The order of sets of
    strings is fixed before an interpreter starts, by ``PYTHONHASHSEED``.
    """
    rng = np.random.default_rng([seed, 0x656E74])
    state, numpy_state = random.getstate(), np.random.get_state()

    def urandom(size: int, /) -> bytes:
        return rng.bytes(size)

    with replaced(os, urandom=urandom), replaced(random, _urandom=urandom):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)
