"""A series of thousands of samples as the few hundred path steps that look the same."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MAX_POINTS = 400
_TENTHS = 10  # Coordinates are whole tenths of a pixel, so rounding never adds up.


@dataclass(frozen=True, slots=True)
class Curve:
    """Points from left to right, in data units.

    Attributes:
        x: Rising, all finite.
        y: Of the same length, all finite.
    """

    x: FloatArray
    y: FloatArray

    @classmethod
    def of(cls, x: FloatArray, y: FloatArray) -> Curve:
        """Keep the samples that are numbers; ``x`` and ``y`` are [n], ``x`` rising."""
        numbers = np.isfinite(x) & np.isfinite(y)
        return cls(x[numbers], y[numbers])

    @classmethod
    def cumulative(cls, samples: FloatArray) -> Curve:
        """Return the empirical distribution of ``samples`` [n]: the share at or below each."""
        ordered = np.sort(samples[np.isfinite(samples)])
        return cls(ordered, np.arange(1, ordered.size + 1) / max(1, ordered.size))

    def thinned_by_rank(self) -> Curve:
        """Keep at most ``MAX_POINTS`` points evenly spaced by index, both ends among them.

        For distributions: every point kept is exact, and none is made up.
        """
        if self.x.size <= MAX_POINTS:
            return self
        kept = np.unique(np.linspace(0, self.x.size - 1, MAX_POINTS).round().astype(np.intp))
        return Curve(self.x[kept], self.y[kept])

    def thinned_by_extremes(self) -> Curve:
        """Keep the lowest and highest point of each of ``MAX_POINTS / 2`` buckets, and both ends.

        For timelines: a spike of one sample stays as tall as it was; a mean would hide it.
        """
        if self.x.size <= MAX_POINTS:
            return self
        kept = {0, self.x.size - 1}
        edges = np.linspace(0, self.x.size, MAX_POINTS // 2).astype(np.intp)
        for start, end in itertools.pairwise(edges.tolist()):
            bucket = self.y[start:end]
            kept |= {start + int(bucket.argmin()), start + int(bucket.argmax())}
        indices = np.array(sorted(kept))
        return Curve(self.x[indices], self.y[indices])


def line_path(x_px: FloatArray, y_px: FloatArray) -> str:
    """Return SVG path data of straight lines through [n] pixel positions, n >= 1."""
    x, y = _in_tenths(x_px), _in_tenths(y_px)
    moves = zip(np.diff(x).tolist(), np.diff(y).tolist(), strict=True)
    lines = "".join(f"l{_px(dx)} {_px(dy)}" for dx, dy in moves if dx or dy)
    return f"M{_px(int(x[0]))} {_px(int(y[0]))}{lines or 'h0'}"


def step_path(x_px: FloatArray, y_px: FloatArray, floor_px: float) -> str:
    """Return path data that rises from ``floor_px`` and holds each value until the next."""
    x = _in_tenths(x_px)
    y = np.concatenate([_in_tenths(np.array([floor_px])), _in_tenths(y_px)])
    steps = zip(np.diff(x, prepend=x[0]).tolist(), np.diff(y).tolist(), strict=True)
    path = "".join(
        f"{f'h{_px(dx)}' if dx else ''}{f'v{_px(dy)}' if dy else ''}" for dx, dy in steps
    )
    return f"M{_px(int(x[0]))} {_px(int(y[0]))}{path or 'h0'}"


def _in_tenths(pixels: FloatArray) -> NDArray[np.int64]:
    return (pixels * _TENTHS).round().astype(np.int64)


def _px(tenths: int) -> str:
    return f"{tenths / _TENTHS:g}"
