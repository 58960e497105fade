"""From what a user types after ``--sessions`` to a workload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent_runtime.errors import ConfigError, TraceError
from agent_runtime.workload.agent_trace import read_agent_trace
from agent_runtime.workload.aiperf_agents import aiperf_agent_sessions
from agent_runtime.workload.api_agents import api_agent_sessions
from agent_runtime.workload.chat_batch import is_chat_batch, read_chat_batch
from agent_runtime.workload.coding_agents import coding_agent_sessions, human_approval_sessions
from agent_runtime.workload.fan_out import fan_out_sessions
from agent_runtime.workload.mooncake_trace import is_mooncake_trace, read_mooncake_trace
from agent_runtime.workload.session_script import Workload
from agent_runtime.workload.trace_lines import numbered_lines

DEFAULT_NUM_SESSIONS = 256

GENERATORS: dict[str, Callable[[int, int, float | None], Workload]] = {
    "coding-agents": coding_agent_sessions,
    "human-approval": human_approval_sessions,
    "fan-out": fan_out_sessions,
    "api-agents": api_agent_sessions,
    "gen-200k": aiperf_agent_sessions,
}
"""Generators by name; each takes the number of sessions, a seed, and a cap on gaps."""


def load_workload(
    source: str, *, limit: int | None, seed: int, max_gap_s: float | None = None
) -> Workload:
    """Return the sessions that ``source`` names.

    Args:
        source: A generator's name, or a trace: a file or folder of agents' sessions, a file of
            requests (Mooncake), an OpenAI batch. What a file is shows in its first line.
        limit: At most so many sessions, >= 1; a generator makes exactly so many, by default 256.
        seed: For generators, >= 0.
        max_gap_s: Cut longer tool gaps to this, >= 0.

    Raises:
        ConfigError: A limit, seed or cap that is out of range.
        TraceError: No such file or generator, or a file that is no trace.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, not {limit}")
    if seed < 0:
        raise ConfigError(f"seed must be at least 0, not {seed}")
    if max_gap_s is not None and not max_gap_s >= 0:  # as written it refuses NaN too
        raise ConfigError(f"max_gap_s must be at least 0, not {max_gap_s}")
    generator = GENERATORS.get(source)
    if generator is not None:
        return generator(DEFAULT_NUM_SESSIONS if limit is None else limit, seed, max_gap_s)
    if not _exists(source):
        known = ", ".join(GENERATORS)
        raise TraceError(f"no such file, and no generator of that name ({known})", path=source)
    if not Path(source).is_dir():
        _, first_line = next(numbered_lines(source), (0, b""))
        if is_mooncake_trace(first_line):
            return read_mooncake_trace(source, limit=limit)
        if is_chat_batch(first_line):
            return read_chat_batch(source, limit=limit, seed=seed)
    return read_agent_trace(source, limit=limit, max_gap_s=max_gap_s)


def _exists(source: str) -> bool:
    try:
        return source != "" and Path(source).exists()
    except OSError as error:  # the name is too long, or a folder on the way is closed to us
        raise TraceError(f"can't read it: {error.strerror or error}", path=source) from error
