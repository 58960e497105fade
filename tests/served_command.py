"""``panjiu serve`` in a process of its own, for programs that are not Python's or not ours."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVE = (sys.executable, "-m", "agent_runtime.cli.main", "serve", "--port", "0")
"""The command; it listens on a free port."""


@dataclass(frozen=True, slots=True)
class ServedCommand:
    """A server that listens.

    Attributes:
        url: Of the server, without /v1.
        process: Runs it.
    """

    url: str
    process: subprocess.Popen[str]


@contextmanager
def served_command(*options: str) -> Iterator[ServedCommand]:
    """Start it on a free port; stop it as Ctrl-C does."""
    with subprocess.Popen(
        [*SERVE, *options], stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stderr is not None
        banner = ""
        while "listening on" not in banner:
            line = process.stderr.readline()
            assert line, f"it ended without a word of where it listens: {banner}"
            banner += line
        url = re.search(r"(http://\S+)/v1", banner)
        assert url is not None
        try:
            yield ServedCommand(url.group(1), process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)
