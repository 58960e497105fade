"""A recording as a file: a page that plays it, or its messages as JSON lines."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

from agent_runtime.rack_view.messages import Message, encoded
from agent_runtime.rack_view.page import dashboard_page

SUFFIXES = (".html", ".jsonl")


def write_recording(target: Path, messages: Sequence[Message]) -> None:
    """Write a recording; the same messages give the same bytes.

    Args:
        target: ``.html`` for a page that needs nothing else, ``.jsonl`` for a message a line.
        messages: Of the recording, in order.
    """
    lines = b"".join(encoded(message) + b"\n" for message in messages)
    if target.suffix == ".jsonl":
        target.write_bytes(lines)
    else:
        target.write_text(dashboard_page(packed(lines)), encoding="utf-8")


def packed(lines: bytes) -> bytes:
    """Return JSON lines gzipped, without the time at which they were."""
    return gzip.compress(lines, mtime=0)
