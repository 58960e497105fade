"""A Redis of the test's own: a real server on a socket in a folder, killed and started at will."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(SERVER is None, reason="no redis-server: make test-redis")


class RedisServer:
    """One server; what it was told it has on disk before it answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, for clients."""
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self._folder / "redis.sock"

    def start(self) -> None:
        """Start it, with what it knew when it was killed."""
        assert SERVER is not None
        terms = ("--port", "0", "--unixsocket", self._socket, "--dir", self._folder)
        durable = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
        self._socket.unlink(missing_ok=True)
        command = [SERVER, *map(str, terms), *durable]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        probe = shutil.which("redis-cli")
        assert probe is not None
        for _ in range(2_000):
            asked = [probe, "-s", str(self._socket), "ping"]
            told = subprocess.run(asked, capture_output=True, text=True, check=False)
            if told.stdout.strip() == "PONG":
                return
            time.sleep(0.01)  # noqa: TID251
        raise AssertionError("redis-server does not answer")

    def kill(self) -> None:
        """End it as SIGKILL does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Run one; nothing of it is left."""
    # The path of a socket has 107 bytes at the most, and those of tests are long.
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()
