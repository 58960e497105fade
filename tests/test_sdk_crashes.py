"""Programs that are killed, and come to the same end as those that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NUM_SEEDS = int(os.environ.get("PANJIU_CRASH_SEEDS", "20"))
"""Each a program of 65 model calls that is killed up to four times."""
ROOT = Path(__file__).parent.parent
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made there


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    """A folder where an fsync costs nothing: SIGKILL loses nothing that the kernel has."""
    parent = IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


def test_a_fleet_that_is_killed_anywhere_ends_as_one_that_is_not(fast_folder: Path) -> None:
    command = [sys.executable, "-m", "tests.crashing_fleet", "0", str(NUM_SEEDS), str(fast_folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["num_asked"] > 50
    assert found["num_done"] > 30
    assert found["num_seeds"] == NUM_SEEDS
    assert sum(found["died"].values()) > NUM_SEEDS
    assert found["died"]["in a transaction"] > 0
