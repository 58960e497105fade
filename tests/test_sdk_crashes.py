"""Programs that are killed, and come to the same end as those that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.journal_places import fast_folder

NUM_SEEDS = int(os.environ.get("PANJIU_CRASH_SEEDS", "20"))
"""Each a program of 65 model calls that is killed up to four times."""
ROOT = Path(__file__).parent.parent


def test_a_fleet_that_is_killed_anywhere_ends_as_one_that_is_not() -> None:
    with fast_folder() as folder:
        command = [sys.executable, "-m", "tests.crashing_fleet", "0", str(NUM_SEEDS), str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["num_asked"] > 50
    assert found["num_done"] > 30
    assert found["num_seeds"] == NUM_SEEDS
    assert sum(found["died"].values()) > NUM_SEEDS
    assert found["died"]["in a transaction"] > 0
