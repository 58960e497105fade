"""What a generator made, beside what was published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """One number of a workload.

    Attributes:
        what: e.g. ``output p50``.
        generated: As people read it, e.g. ``218``.
        published: The same, of the source.
        source: Who published it, or ``assumed``.
    """

    what: str
    generated: str
    published: str
    source: str


def as_note(figures: Sequence[PublishedFigure]) -> str:
    """Return the figures as a line of a report's notes."""
    pairs = ", ".join(f"{f.what} {f.generated} ({f.published})" for f in figures)
    return f"generated (published): {pairs}."
