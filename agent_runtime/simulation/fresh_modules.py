"""Lets a program be run again in the same process as if it were the first time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fresh_modules(folder: Path) -> Iterator[None]:
    """Forget, when the context is left, the modules that were imported from a folder in it.

    Libraries stay: importing them again takes long and many can't be imported twice.
    """
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and _is_within(Path(file), folder):
                del sys.modules[name]


def _is_within(file: Path, folder: Path) -> bool:
    return file.is_relative_to(folder) and "site-packages" not in file.parts
