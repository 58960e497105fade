"""Which program a session belongs to, and when it does not any more. Time is an argument.

A program has a token, under which Redis keeps who it is, and a lease, which it renews. Sessions
that it has open have its token. Whoever wants one of them and finds its lease run out, or knows
that its process is gone, takes the token away, and with it everything: what is written is written
under a token that is there.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

PROC = Path("/proc")
GONE_STATES = ("Z", "X")
"""Of processes that have ended, though somebody has yet to ask how."""
OVER = "over"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, so that it can be told from all others, here and elsewhere.

    Attributes:
        number: Its id.
        started: When it began, in the system's own units; empty where that can't be found out.
        machine: Which system numbers it: the boot and the namespace; empty where that can't be
            found out.
    """

    number: int
    started: str
    machine: str

    @classmethod
    def own(cls) -> Self:
        """Return this one."""
        number = os.getpid()
        started = _started(number)
        return cls(number, started, _machine() if started else "")

    def is_known_gone(self) -> bool:
        """Return whether it has ended; False also where that can't be seen from here."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.number, 0)  # only asks whether it is there
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # it is, and somebody else's
        started = _started(self.number)
        return started not in ("", self.started)


@dataclass(frozen=True, slots=True)
class Owner:
    """A program that has sessions.

    Attributes:
        token: Under which it writes; greater is later.
        process: Its process.
        host: Where it runs.
        command: What it was started as.
        since_epoch_s: When it began.
        lease_s: How long it keeps its sessions after it was last heard of.
        renewed_ms: When that was, by the clock of Redis.
    """

    token: str
    process: Process
    host: str
    command: str
    since_epoch_s: float
    lease_s: float
    renewed_ms: int

    @classmethod
    def own(cls, token: str, since_epoch_s: float, lease_s: float, now_ms: int) -> Self:
        """Return this program."""
        command = " ".join(sys.orig_argv) or sys.executable
        process, host = Process.own(), socket.gethostname()
        return cls(token, process, host, command, since_epoch_s, lease_s, now_ms)

    @classmethod
    def of(cls, token: str, fields: Mapping[str, str]) -> Self:
        """Return one as Redis has it."""
        return cls(
            token,
            Process(int(fields["process"]), fields["started"], fields["machine"]),
            fields["host"],
            fields["command"],
            float(fields["since_epoch_s"]),
            float(fields["lease_s"]),
            int(fields["renewed_ms"]),
        )

    def fields(self) -> dict[str, str]:
        """Return it as Redis has it."""
        return {
            "process": str(self.process.number),
            "started": self.process.started,
            "machine": self.process.machine,
            "host": self.host,
            "command": self.command.encode("utf-8", "backslashreplace").decode(),
            "since_epoch_s": repr(self.since_epoch_s),
            "lease_s": repr(self.lease_s),
            "renewed_ms": str(self.renewed_ms),
        }

    def left_s(self, now_ms: int) -> float:
        """Return how long its lease lasts, by the clock of Redis; 0 when it has run out."""
        return max(0.0, self.lease_s - (now_ms - self.renewed_ms) / 1000)

    def is_over(self, now_ms: int) -> bool:
        """Return whether others may have its sessions."""
        return self.left_s(now_ms) == 0.0 or self.process.is_known_gone()

    def told(self) -> str:
        """Return who it is, for people."""
        since = datetime.fromtimestamp(self.since_epoch_s, UTC)
        return (
            f"process {self.process.number} on {self.host} since {since:%Y-%m-%d %H:%M:%S} UTC "
            f"({self.command})"
        )


def _machine() -> str:
    """Return what tells this system's process ids from those of others, and of other boots."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(number: int) -> str:
    """Return when a process began; that it is over; or nothing where that can't be seen."""
    try:
        # The name, in brackets, may have spaces and brackets of its own.
        fields = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return OVER if fields[0] in GONE_STATES else fields[19]
