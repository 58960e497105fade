"""The documents of a trace: lines of a file, one JSON file, a list in one, or a folder of files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent_runtime.errors import TraceError
from agent_runtime.workload.trace_lines import MAX_LINE_BYTES, numbered_lines

SUFFIXES = (".json", ".json.gz", ".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class TraceDocument:
    """One JSON value of a trace, and where it stands.

    Attributes:
        path: The file.
        line: Its line, or None where the file is one document.
        data: The JSON.
    """

    path: str
    line: int | None
    data: bytes


def trace_documents(source: str) -> Iterator[TraceDocument]:
    """Yield the documents of a file, or of a folder's files in the order of their names.

    A file whose first line is a JSON value has one a line; any other is one value, of which a
    list's members are documents each.

    Raises:
        TraceError: It can't be read, is no JSON, or is a folder without traces.
    """
    if not Path(source).is_dir():
        yield from _documents_of(source)
        return
    for path in _files_in(source):
        yield from _documents_of(path)


def _files_in(folder: str) -> list[str]:
    try:
        files = sorted(path for path in Path(folder).iterdir() if path.name.endswith(SUFFIXES))
    except OSError as error:
        raise TraceError(f"can't read it: {error.strerror or error}", path=folder) from error
    if not files:
        raise TraceError(f"no traces in this folder; expected {', '.join(SUFFIXES)}", path=folder)
    return [str(path) for path in files]


def _documents_of(path: str) -> Iterator[TraceDocument]:
    lines = numbered_lines(path)
    first = next(lines, None)
    if first is None:
        return
    number, line = first
    if _is_json(line):
        yield TraceDocument(path, number, line)
        for number, line in lines:
            yield TraceDocument(path, number, line)
        return
    if not line.lstrip().startswith((b"{", b"[")):
        yield TraceDocument(path, number, line)  # whoever parses it says what is wrong
        return
    whole = _joined(path, line, lines)
    if not line.lstrip().startswith(b"["):
        yield TraceDocument(path, None, whole)
        return
    try:
        members = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"not JSON: {error}", path=path) from error
    for member in members:
        yield TraceDocument(path, None, json.dumps(member).encode())


def _joined(path: str, first: bytes, others: Iterator[tuple[int, bytes]]) -> bytes:
    pieces, num_bytes = [first], len(first)
    for number, line in others:
        num_bytes += len(line)
        if num_bytes > MAX_LINE_BYTES:
            problem = f"expected at most {MAX_LINE_BYTES >> 20} MiB in one JSON value"
            raise TraceError(problem, path=path, line=number)
        pieces.append(line)
    return b"".join(pieces)


def _is_json(line: bytes) -> bool:
    if line.lstrip()[:1] == b"[":
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
