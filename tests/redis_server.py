"""A real redis-server, for tests: on a socket in a folder of its own, everything on its disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.journal_places import IN_MEMORY

COMMAND = os.environ.get("PANJIU_REDIS_SERVER", "redis-server")
"""Any that speaks Redis' protocol and takes its options: Valkey does."""
START_S = 20


WHY_SKIPPED = f"no {COMMAND} here: 'make test-redis' installs one"
needs_redis = pytest.mark.skipif(shutil.which(COMMAND) is None, reason=WHY_SKIPPED)


def skip_without_redis() -> None:
    if shutil.which(COMMAND) is None:
        pytest.skip(WHY_SKIPPED)


class RedisServer:
    """One that can be killed and started again on what it has on its disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"
        self.client = redis.Redis(
            unix_socket_path=str(self.socket),
            decode_responses=True,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        )

    @property
    def url(self) -> str:
        """Where it is, for clients."""
        return f"unix://{self.socket}"

    def place(self, prefix: str, *more: str) -> str:
        """Return the URL of a journal of the SDK's in it."""
        return f"{self.url}?{'&'.join([f'prefix={prefix}', *more])}"

    def start(self, *options: str) -> None:
        """Start it; returns once it answers."""
        safe = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        here = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([COMMAND, *here, *safe, *options], stdout=log)
        until_s = time.monotonic() + START_S  # noqa: TID251 - another process
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until_s:  # noqa: TID251
                raise RuntimeError(f"{COMMAND}: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)  # noqa: TID251

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """End it without a warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def kill_from_another_process(self) -> None:
        """As ``kill``, from a fork of the process that started it."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)

    def keep_up_while(self, is_wanted: Callable[[], bool]) -> None:
        """Start it again whenever it is gone."""
        assert self._process is not None
        while is_wanted():
            if self._process.poll() is not None:
                self.start()
            time.sleep(0.005)  # noqa: TID251 - looks at other processes
        if not self._answers():
            self._process.wait()
            self.start()

    def set(self, **options: Any) -> None:
        for name, value in options.items():
            self.client.config_set(name.replace("_", "-"), value)

    def drop_connections(self) -> None:
        self.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def recover(self) -> None:
        """Have it as it was when it was started, with what it has."""
        if self._process is not None:
            self.kill()
        self.start()

    def wait_for(self, text: str, *command: str) -> None:
        """Wait until a command answers with a text in it."""
        while text not in str(self.client.execute_command(*command)):
            time.sleep(0.01)  # noqa: TID251 - waits for another process

    def close(self) -> None:
        self.client.close()
        if self._process is not None:
            self.kill()


@contextmanager
def running_redis(*options: str, parent: Path | None = None) -> Iterator[RedisServer]:
    """Have a server of one's own, by default on a disk that is memory: fsyncs cost nothing."""
    if parent is None and IN_MEMORY.is_dir():
        parent = IN_MEMORY
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        server = RedisServer(Path(folder).absolute())
        try:
            server.start(*options)
            yield server
        finally:
            server.close()
