"""The lines of a trace file, plain or gzipped, and how a wrong value in one is shown."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from agent_runtime.errors import TraceError

GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE_BYTES = 1 << 28
"""Longer lines are refused, so that a small zipped file can't fill the memory."""

MAX_SHOWN = 40
"""Characters of a wrong value that a message shows."""


def numbered_lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1.

    Raises:
        TraceError: The file can't be read, its compression is broken, or a line is too long.
    """
    number = 0
    try:
        with Path(path).open("rb") as raw:
            is_zipped = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            file: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if is_zipped else raw
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            for number, line in enumerate(lines, start=1):
                if len(line) > MAX_LINE_BYTES:
                    problem = f"expected at most {MAX_LINE_BYTES >> 20} MiB a line"
                    raise TraceError(problem, path=path, line=number)
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"broken gzip data: {error}", path=path, line=number + 1) from error
    except OSError as error:
        raise TraceError(f"can't read it: {error.strerror or error}", path=path) from error
    except ValueError as error:  # a name that no file can have, e.g. with a null character
        raise TraceError(f"can't read it: {error}", path=path) from error


def shown(value: object) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def wrong_value(
    error: ValidationError, *, path: str, line: int | None, place: str | None = None
) -> TraceError:
    """Return what pydantic found first, as an error of the trace's.

    Args:
        error: What it raised.
        path: The file.
        line: In it, or None.
        place: Of the field in its JSON; by default as pydantic spells it.
    """
    first = error.errors(include_url=False)[0]
    says_all = first["type"] in {"missing", "json_invalid"}
    found = "" if says_all else f", found {shown(first['input'])}"
    if place is None:
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        place = "".join(parts).lstrip(".")
    return TraceError(f"{first['msg']}{found}", path=path, line=line, field=place or None)
