"""How hypothesis runs: no deadlines, since machines differ; in CI the same examples every time.

And what tests share that takes a while to start: a browser, a Redis.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.browser import Opened, opened_recordings, started_browser
from tests.journal_places import NewJournal, new_file
from tests.redis_server import RedisServer, running_redis, skip_without_redis
from tools.compile_hot_modules import ROOT, compiled_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_report_header() -> str:
    """Say whether the hot modules are compiled, and refuse to test what nobody edits any more."""
    compiled = [path for path in compiled_files() if "__mypyc" not in path.name]
    stale = [path for path in compiled if _source(path).stat().st_mtime > path.stat().st_mtime]
    if stale:
        raise pytest.UsageError(
            f"{_source(stale[0]).relative_to(ROOT)} was edited after it was compiled: run "
            "'make compile', or 'python tools/compile_hot_modules.py --clean'"
        )
    return f"compiled modules: {len(compiled)}"


def _source(compiled: Path) -> Path:
    return compiled.with_name(compiled.name.split(".")[0] + ".py")


PREFIXES = itertools.count()
"""Tells tests' journals in Redis apart."""


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A Redis for all tests that leave it as it was; skips them where there is none."""
    skip_without_redis()
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """A journal in Redis that nobody has written yet."""
    return shared_redis.place(f"test{next(PREFIXES)}")


@pytest.fixture(scope="session", params=["sqlite", "redis"])
def new_journal(request: pytest.FixtureRequest) -> NewJournal:
    """Makes journals that nobody has written yet, wherever journals are."""
    if request.param == "sqlite":
        return new_file
    shared: RedisServer = request.getfixturevalue("shared_redis")
    return lambda: nullcontext(shared.place(f"test{next(PREFIXES)}"))


@pytest.fixture
def journal_place(new_journal: NewJournal) -> Iterator[str]:
    """A journal that nobody has written yet, wherever journals are."""
    with new_journal() as place:
        yield place


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; tests that need one are skipped where it is not installed."""
    with started_browser() as started:
        yield started


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens recordings in it."""
    with opened_recordings(browser, tmp_path) as open_one:
        yield open_one
