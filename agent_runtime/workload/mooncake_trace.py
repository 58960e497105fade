"""Reads request traces in Mooncake's form: JSONL, plain or gzipped, a request a line.

A line holds ``timestamp`` (ms), ``input_length``, ``output_length`` (tokens) and ``hash_ids``, one
for each started block of 512 prompt tokens. An id stands for its block and all before it, so equal
ids are equal prefixes. Requests come when they came, whatever the rack does: an open loop.

Source: kvcache-ai/Mooncake, FAST25-release/README.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_runtime.errors import ConfigError, TraceError
from agent_runtime.workload.block_id_runs import BlockIdRun
from agent_runtime.workload.session_script import ScriptedTurn, SessionScript, Workload
from agent_runtime.workload.trace_lines import numbered_lines, wrong_value
from scheduler.ids import SessionId

MOONCAKE_BLOCK_TOKENS = 512

TokenCount = Annotated[int, Field(ge=0, le=1 << 31)]
FIRST_OUTPUT_ID = 1 << 62
"""Ids of engine blocks below are of prompts, from here on of outputs."""

HashId = Annotated[int, Field(ge=0, lt=1 << 32)]


class RecordedRequest(BaseModel):
    """A line."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    timestamp: Annotated[float, Field(ge=0, le=1e12)]
    input_length: Annotated[TokenCount, Field(ge=1)]
    output_length: TokenCount
    hash_ids: list[HashId]


def read_mooncake_trace(
    path: str | Path,
    *,
    limit: int | None = None,
    block_size_tokens: int = 64,
    trace_block_tokens: int = MOONCAKE_BLOCK_TOKENS,
) -> Workload:
    """Read a trace.

    Args:
        path: The file.
        limit: Read at most so many requests, >= 1.
        block_size_tokens: Tokens in a KV block of the engine; a divisor of the trace's.
        trace_block_tokens: Tokens in a block of the trace.

    Returns:
        The requests in order of arrival, those of one time in the file's order. Blocks that an
        output fills have ids of their own: they are cached like others, but nobody hits them.

    Raises:
        ConfigError: A block size that doesn't divide the trace's, or a limit below 1.
        TraceError: The file can't be read, or a line is no request; names line and field.
    """
    if block_size_tokens < 1 or trace_block_tokens % block_size_tokens:
        raise ConfigError(
            f"block_size_tokens must divide the trace's {trace_block_tokens}, which "
            f"{block_size_tokens} doesn't"
        )
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, not {limit}")
    reader = _RequestReader(str(path), block_size_tokens, trace_block_tokens)
    for number, line in numbered_lines(str(path)):
        reader.add(line, number)
        if len(reader.requests) == limit:
            break
    if not reader.requests:
        raise TraceError("no requests in it; expected one JSON object a line", path=str(path))
    in_order = sorted(reader.requests, key=lambda request: request[0])
    count = reader.num_empty_outputs
    note = f"{count} recorded requests had no output; they are simulated with one token."
    return Workload(
        name=Path(path).name,
        block_size_tokens=block_size_tokens,
        sessions=tuple(script for _, script in in_order),
        notes=(note,) if count else (),
        arrives_s=tuple(arrives_s for arrives_s, _ in in_order),
    )


class _RequestReader:
    """Turns lines into scripts.

    Invariant: ``_before`` holds, for each id read so far, the one that it always follows.
    """

    def __init__(self, path: str, block_size_tokens: int, trace_block_tokens: int) -> None:
        self.requests: list[tuple[float, SessionScript]] = []
        self.num_empty_outputs = 0
        self._path = path
        self._block_size_tokens = block_size_tokens
        self._trace_block_tokens = trace_block_tokens
        self._before: dict[int, int | None] = {}
        self._next_output_id = FIRST_OUTPUT_ID

    def add(self, line: bytes, number: int) -> None:
        """Read one line."""
        request = self._parsed(line, number)
        expected = -(-request.input_length // self._trace_block_tokens)
        if len(request.hash_ids) != expected:
            raise TraceError(
                f"expected {expected} ids for {request.input_length} tokens in blocks of "
                f"{self._trace_block_tokens}, found {len(request.hash_ids)}",
                path=self._path,
                line=number,
                field="hash_ids",
            )
        self._check_prefix(request.hash_ids, number)
        self.num_empty_outputs += request.output_length == 0
        turn = ScriptedTurn(
            isl_tokens=request.input_length,
            osl_tokens=max(1, request.output_length),
            gap_s=0.0,
            block_id_runs=self._runs(request),
        )
        script = SessionScript(SessionId(f"request-{number}"), (turn,))
        self.requests.append((request.timestamp / 1e3, script))

    def _parsed(self, line: bytes, number: int) -> RecordedRequest:
        try:
            return RecordedRequest.model_validate_json(line)
        except ValidationError as error:
            raise wrong_value(error, path=self._path, line=number) from error

    def _check_prefix(self, hash_ids: list[int], number: int) -> None:
        """Refuse ids that stand for single blocks; a prefix cache has no meaning for them."""
        before: int | None = None
        for index, hash_id in enumerate(hash_ids):
            elsewhere = self._before.setdefault(hash_id, before)
            if elsewhere != before:
                here, there = ("nothing" if one is None else one for one in (before, elsewhere))
                raise TraceError(
                    "expected ids of whole prefixes (chained hashes), found "
                    f"{hash_id} after {here} here and after {there} before",
                    path=self._path,
                    line=number,
                    field=f"hash_ids[{index}]",
                )
            before = hash_id

    def _runs(self, request: RecordedRequest) -> tuple[BlockIdRun, ...]:
        """Return the full blocks of prompt and output; each id is so many of them in a row."""
        scale = self._trace_block_tokens // self._block_size_tokens
        num_prompt = request.input_length // self._block_size_tokens
        num_left = num_prompt
        runs: list[BlockIdRun] = []
        start = stop = -1
        for hash_id in request.hash_ids:
            if hash_id != stop:
                if start < stop:
                    num_left -= _append(runs, start * scale, (stop - start) * scale, num_left)
                start = hash_id
            stop = hash_id + 1
        _append(runs, start * scale, (stop - start) * scale, num_left)
        num_tokens = request.input_length + max(1, request.output_length)
        num_output = num_tokens // self._block_size_tokens - num_prompt
        _append(runs, self._next_output_id, num_output, num_output)
        self._next_output_id += num_output + 1  # runs of two requests never join
        return tuple(runs)


def _append(runs: list[BlockIdRun], first: int, length: int, most: int) -> int:
    """Append a run of at most ``most`` ids, if any; return how many."""
    length = min(length, most)
    if length:
        runs.append((first, first + length - 1))
    return length


def is_mooncake_trace(first_line: bytes) -> bool:
    """Tell by a file's first line whether it is a trace of this form."""
    return b'"hash_ids"' in first_line and b'"timestamp"' in first_line
