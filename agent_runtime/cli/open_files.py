"""How many sockets this process may have."""

from __future__ import annotations

import resource

MAX_OPEN_FILES = 65_536


def raise_open_files() -> None:
    """Allow as many sockets as may be: hundreds of streams need more than the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
