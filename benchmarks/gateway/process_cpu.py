"""CPU seconds of a process and all below it, from /proc."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_s(pid: int) -> float:
    """Return user and system seconds that a process and its descendants have used so far."""
    children: dict[int, list[int]] = {}
    used_s: dict[int, float] = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            stat = (directory / "stat").read_text()
        except OSError:
            continue  # it ended meanwhile
        fields = stat[stat.rindex(")") + 2 :].split()
        number = int(directory.name)
        children.setdefault(int(fields[1]), []).append(number)
        used_s[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    total, todo = 0.0, [pid]
    while todo:
        number = todo.pop()
        total += used_s.get(number, 0.0)
        todo += children.get(number, [])
    return total
