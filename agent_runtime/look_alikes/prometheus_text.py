"""Prometheus' text form, cheap to keep and cheap to write.

A rack has 128 engines with 25 histograms each; routers scrape all of them every second, and every
token is counted in two. So a histogram is a list of counts, and all that stays the same from scrape
to scrape is formatted once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricKind(StrEnum):
    """What Prometheus calls a type."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Histogram:
    """Counts of values by bucket.

    Args:
        bounds: Ascending upper bounds, inclusive; one more bucket takes what is above them.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


@dataclass(frozen=True, slots=True)
class _Value:
    head: str
    read: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Buckets:
    heads: tuple[str, ...]
    sum_head: str
    count_head: str
    histogram: Histogram


class MetricsPage:
    """What one target exposes; families stand in the order in which they were added."""

    def __init__(self) -> None:
        self._parts: list[str | _Value | _Buckets] = []

    def family(self, name: str, kind: MetricKind, about: str) -> None:
        """Begin a family; counters are named without ``_total``, which their values have."""
        exposed = f"{name}_total" if kind is MetricKind.COUNTER else name
        self._parts.append(f"# HELP {exposed} {about}\n# TYPE {exposed} {kind.value}\n")

    def value(
        self,
        name: str,
        kind: MetricKind,
        about: str,
        by_labels: Iterable[tuple[Mapping[str, str], Callable[[], float]]],
    ) -> None:
        """Add a gauge or a counter: what is read for each set of labels at every scrape."""
        self.family(name, kind, about)
        exposed = f"{name}_total" if kind is MetricKind.COUNTER else name
        for labels, read in by_labels:
            self._parts.append(_Value(f"{exposed}{_braces(labels)} ", read))

    def histogram(
        self, name: str, about: str, labels: Mapping[str, str], histogram: Histogram
    ) -> None:
        """Add a histogram."""
        self.family(name, MetricKind.HISTOGRAM, about)
        bounds = [*(_number(float(bound)) for bound in histogram.bounds), "+Inf"]
        heads = tuple(f"{name}_bucket{_braces({**labels, 'le': bound})} " for bound in bounds)
        braces = _braces(labels)
        self._parts.append(
            _Buckets(heads, f"{name}_sum{braces} ", f"{name}_count{braces} ", histogram)
        )

    def text(self) -> str:
        """Return the page as it stands now."""
        lines: list[str] = []
        for part in self._parts:
            match part:
                case str():
                    lines.append(part)
                case _Value(head=head, read=read):
                    lines.append(f"{head}{_number(read())}\n")
                case _Buckets():
                    _write(part, lines)
        return "".join(lines)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """Return the value that a share of those counted does not exceed; 0 without any.

    Interpolated inside its bucket; of what is above the last bound, that bound.
    """
    rank, below = share * sum(counts), 0
    if rank == 0:
        return 0.0
    lower = 0.0
    for upper, count in zip(bounds, counts, strict=False):
        if below + count >= rank:
            return min(upper, lower + (upper - lower) * (rank - below) / count)
        below += count
        lower = upper
    return lower


def _write(part: _Buckets, lines: list[str]) -> None:
    cumulated = 0
    for head, count in zip(part.heads, part.histogram.counts, strict=True):
        cumulated += count
        lines.append(f"{head}{cumulated}.0\n")
    lines.append(f"{part.count_head}{cumulated}.0\n{part.sum_head}{part.histogram.total!r}\n")


def _number(value: float) -> str:
    return repr(float(value))


def _braces(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
