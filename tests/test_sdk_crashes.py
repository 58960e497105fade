"""Programs that are killed, and come to the same end as those that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journal_places import fast_folder
from tests.redis_server import skip_without_redis

NUM_SEEDS = int(os.environ.get("PANJIU_CRASH_SEEDS", "20"))
"""Each a program of 65 model calls that is killed up to four times."""
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_fleet_that_is_killed_anywhere_ends_as_one_that_is_not(store: str) -> None:
    if store == "redis":
        skip_without_redis()
    with fast_folder() as folder:
        module = [sys.executable, "-m", "tests.crashing_fleet"]
        command = [*module, "0", str(NUM_SEEDS), str(folder), store]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["num_asked"] > 50
    assert found["num_done"] > 30
    assert found["num_seeds"] == NUM_SEEDS
    died = found["died"]
    assert sum(died.values()) > NUM_SEEDS
    if store == "sqlite":
        assert died["in a transaction"] > 0
    else:
        assert died["before Redis answered"] > 0
        assert sum(times for what, times in died.items() if what.startswith("redis-server")) > 0
