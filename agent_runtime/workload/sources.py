"""From what a user types after ``--sessions`` to a workload."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
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
from agent_runtime.workload.trace_lines import numbered_lines, shown

DEFAULT_NUM_SESSIONS = 256

MAX_KEYS_SHOWN = 6
"""Of an object that is no trace."""


@dataclass(frozen=True, slots=True)
class Generator:
    """What makes sessions up.

    Attributes:
        make: Takes the number of sessions, a seed, and a cap on gaps.
        about: What it makes, in a line.
    """

    make: Callable[[int, int, float | None], Workload]
    about: str


GENERATORS: dict[str, Generator] = {
    "coding-agents": Generator(
        coding_agent_sessions,
        "long contexts, short tool gaps, compaction, sub-agents (TraceLab, kv-cache-tester)",
    ),
    "human-approval": Generator(
        human_approval_sessions, "the same, waiting for a person every few calls"
    ),
    "fan-out": Generator(
        fan_out_sessions, "a planner, workers side by side that share its context, a critic"
    ),
    "api-agents": Generator(
        api_agent_sessions, "short prompts from popular templates, open loop (Mooncake, Bailian)"
    ),
    "gen-200k": Generator(
        aiperf_agent_sessions, "contexts to 200k by the parameters of AIPerf's generator"
    ),
}

FORMATS = {
    "agent sessions": "JSONL of kv-cache-tester's sessions, block ids listed or run-length coded",
    "kv-cache-tester": "its own files, one JSON session each; a folder of them is one trace",
    "Weka": "the same as AIPerf and SemiAnalysis have it, sub-agents timed from the beginning",
    "Mooncake": "JSONL of requests with times and block hashes; open loop",
    "OpenAI batch": "JSONL of chat completions; a request that continues another is its next turn",
}
"""Forms of trace files; which one a file has shows in its content."""


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
        return generator.make(DEFAULT_NUM_SESSIONS if limit is None else limit, seed, max_gap_s)
    if not _exists(source):
        known = ", ".join(GENERATORS)
        raise TraceError(f"no such file, and no generator of that name ({known})", path=source)
    if not Path(source).is_dir():
        number, first_line = next(numbered_lines(source), (0, b""))
        if is_mooncake_trace(first_line):
            return read_mooncake_trace(source, limit=limit)
        if is_chat_batch(first_line):
            return read_chat_batch(source, limit=limit, seed=seed)
        _refuse_unknown(source, first_line, number)
    return read_agent_trace(source, limit=limit, max_gap_s=max_gap_s)


def _exists(source: str) -> bool:
    try:
        return source != "" and Path(source).exists()
    except OSError as error:  # the name is too long, or a folder on the way is closed to us
        raise TraceError(f"can't read it: {error.strerror or error}", path=source) from error


def _refuse_unknown(source: str, first_line: bytes, number: int) -> None:
    """Refuse a line that is sound JSON of no form known here; its reader refuses all others."""
    try:
        value = json.loads(first_line)
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict) and not {"requests", "block_size", "id"} & value.keys():
        known = "; ".join(f"{name} ({about})" for name, about in FORMATS.items())
        found = ", ".join(shown(key) for key in list(value)[:MAX_KEYS_SHOWN]) or "none"
        raise TraceError(
            f"a trace of no known form; expected one of {known}; found an object with the keys "
            f"{found}",
            path=source,
            line=number,
        )
