"""Step times from kernel times measured on the card itself, instead of from a roofline.

A profile has, for one model on one card: seconds of everything that depends on the number of new
tokens, seconds of everything that depends on the number of sequences, and seconds of attention on a
grid of batch shapes. A step is their sum, interpolated, plus the all-reduces of its TP group.

Source: the tables are in the form of LLMServingSim's profiler (casys-kaist/LLMServingSim); the way
they are combined is checked against real runs by ``benchmarks/fidelity/vllm_runs.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw_model.errors import ConfigError
from hw_model.step_time import StepShape

FloatArray = NDArray[np.float64]
ONCE_A_MODEL = {"embedding", "final_layernorm"}
TWICE_A_LAYER = {"layernorm"}


@dataclass(frozen=True, slots=True)
class AllReduceCost:
    """The collectives of a TP group in one step.

    Attributes:
        latency_s: Of one, however small.
        bytes_per_s: At which a rank sends.
        bytes_per_token: Of activations that one reduces.
        num_per_step: Two a layer.
    """

    latency_s: float
    bytes_per_s: float
    bytes_per_token: float
    num_per_step: int

    def seconds(self, num_tokens: int) -> float:
        """Return the seconds of a step with so many new tokens."""
        each_s = self.latency_s + num_tokens * self.bytes_per_token / self.bytes_per_s
        return self.num_per_step * each_s


class AttentionGrid:
    """Attention of one layer, measured on a grid of batch shapes; multilinear in between.

    Three measurements: decodes alone, a prefill chunk alone, a chunk beside decodes. Attention that
    runs both in one kernel is slower than the two apart, so none is made up from the others.

    Args:
        rows: ``(prefill_chunk, prefill_kv, num_decodes, decode_kv, seconds)`` [n, 5]: one chunk of
            so many tokens with so many before it, beside so many decodes of equal context. Where
            the rows are several overlapping grids, the largest complete one is used.

    Raises:
        ConfigError: One of the three is missing or no grid.
    """

    def __init__(self, rows: FloatArray) -> None:
        has_chunk, has_decodes = rows[:, 0] > 0, rows[:, 2] > 0
        alone = rows[has_chunk & ~has_decodes]
        self._lines = _decode_lines(rows[~has_chunk & has_decodes])
        self._alone = _CompleteGrid(alone[:, [0, 1, 4]])
        self._mixed = _CompleteGrid(rows[has_chunk & has_decodes])
        chunk, before, seconds = alone[:, 0], alone[:, 1], alone[:, 4]
        columns = [np.ones(len(alone)), chunk, before, chunk * (before + chunk / 2)]
        self.seconds_per_pair = float(_relative_fit(columns, seconds)[3])

    def decode_line(self, num_sequences: int) -> tuple[float, float]:
        """Return ``(fixed_s, per_kv_token_s)`` of a batch of decodes alone.

        Measured decode attention is a line in the summed context for each batch size.
        """
        sizes, fixed_s, per_kv_s = self._lines.T
        return (
            float(np.interp(num_sequences, sizes, fixed_s)),
            float(np.interp(num_sequences, sizes, per_kv_s)),
        )

    def mixed_s(
        self, chunk: float, prefill_kv: float, num_decodes: float, decode_kv: float
    ) -> float:
        """Return the seconds of one chunk beside decodes of the same context each."""
        if num_decodes == 0:
            return self._alone.at((chunk, prefill_kv))
        return self._mixed.at((chunk, prefill_kv, num_decodes, decode_kv))


class _CompleteGrid:
    """Values on a full grid; multilinear inside, constant outside.

    Args:
        rows: Coordinates and, last, the value [n, axes + 1].
    """

    def __init__(self, rows: FloatArray) -> None:
        axes = [np.unique(column) for column in rows.T[:-1]]
        values = np.full([len(axis) for axis in axes], np.nan)
        places = zip(axes, rows.T[:-1], strict=True)
        values[tuple(np.searchsorted(axis, column) for axis, column in places)] = rows[:, -1]
        while np.isnan(values).any():
            axis, index = _emptiest_slice(np.isnan(values))
            values = np.delete(values, index, axis)
            axes[axis] = np.delete(axes[axis], index)
        if any(len(axis) < 2 for axis in axes):  # noqa: PLR2004 - two to interpolate between
            raise ConfigError("an attention profile needs a grid with two values on every axis")
        self._axes, self._values = axes, values

    def at(self, point: Sequence[float]) -> float:
        """Return the value at a point, one coordinate an axis."""
        values = self._values
        for axis, coordinate in zip(self._axes, point, strict=True):
            low, fraction = _bracket(axis, coordinate)
            values = values[low] * (1 - fraction) + values[low + 1] * fraction
        return float(values)


def _emptiest_slice(missing: NDArray[np.bool_]) -> tuple[int, int]:
    """Return axis and index of the slice with the largest share missing."""
    worst = (-1.0, 0, 0)
    for axis in range(missing.ndim):
        shares = missing.mean(axis=tuple(other for other in range(missing.ndim) if other != axis))
        index = int(np.argmax(shares))
        worst = max(worst, (float(shares[index]), axis, index))
    return worst[1], worst[2]


def _decode_lines(rows: FloatArray) -> FloatArray:
    """Fit seconds = fixed + slope * summed context for each batch size [sizes, 3]."""
    lines = []
    for size in np.unique(rows[:, 2]):
        alone = rows[rows[:, 2] == size]
        fit = _relative_fit([np.ones(len(alone)), size * alone[:, 3]], alone[:, 4])
        lines.append((size, *fit))
    if not lines:
        raise ConfigError("an attention profile needs decodes alone")
    return np.array(lines, dtype=np.float64)


class ProfiledStepTime:
    """Step times of one replica from a profile; the engine takes it in place of a roofline.

    Args:
        dense: ``(layer name, tokens, seconds)`` of what depends on new tokens, one layer each.
        per_sequence: ``(name, sequences, seconds)`` of output head and sampler.
        attention: One layer's attention.
        num_layers: Of the model.
        all_reduce: None without tensor parallelism.
        step_overhead_s: Host time per step that the card waits for.
    """

    def __init__(
        self,
        dense: Iterable[tuple[str, float, float]],
        per_sequence: Iterable[tuple[str, float, float]],
        attention: AttentionGrid,
        *,
        num_layers: int,
        all_reduce: AllReduceCost | None = None,
        step_overhead_s: float = 0.0,
    ) -> None:
        def times(name: str) -> int:
            return 1 if name in ONCE_A_MODEL else num_layers * (1 + (name in TWICE_A_LAYER))

        self._dense = _summed((times(name), size, seconds) for name, size, seconds in dense)
        self._per_sequence = _summed((1, size, seconds) for _, size, seconds in per_sequence)
        self._attention = attention
        self._num_layers = num_layers
        self._all_reduce = all_reduce
        self._step_overhead_s = step_overhead_s

    def decode_line(self, num_sequences: int) -> tuple[float, float]:
        """Return ``(fixed_s, per_kv_token_s)`` of a pure decode step."""
        fixed_s, per_kv_s = self._attention.decode_line(num_sequences)
        batch_s = self._batch_s(num_sequences, num_sequences)
        return batch_s + self._num_layers * fixed_s, self._num_layers * per_kv_s

    def step_s(self, shape: StepShape) -> float:
        """Return the seconds of one step.

        A step's prefill is taken for one chunk, as it nearly always is; where several prompts share
        a step, the query-key pairs that one chunk would have beyond theirs are taken off again.
        """
        if shape.prefill_pairs == 0:
            fixed_s, per_kv_s = self.decode_line(shape.num_sequences)
            return fixed_s + per_kv_s * shape.kv_read_tokens
        num_decodes = shape.num_sequences - 1
        chunk = shape.num_tokens - num_decodes
        before = shape.prefill_pairs / chunk - chunk / 2
        surplus_pairs = max(0.0, -before) * chunk
        before = max(0.0, before)
        decode_kv = max(0.0, shape.kv_read_tokens - before) / max(1, num_decodes)
        attention_s = self._attention.mixed_s(chunk, before, num_decodes, decode_kv)
        attention_s -= surplus_pairs * self._attention.seconds_per_pair
        return self._batch_s(shape.num_tokens, shape.num_sequences) + self._num_layers * attention_s

    def _batch_s(self, num_tokens: int, num_sequences: int) -> float:
        """Seconds of everything but attention."""
        total_s = self._step_overhead_s
        total_s += float(np.interp(num_tokens, *self._dense))
        total_s += float(np.interp(num_sequences, *self._per_sequence))
        if self._all_reduce is not None:
            total_s += self._all_reduce.seconds(num_tokens)
        return total_s


def _summed(rows: Iterable[tuple[int, float, float]]) -> tuple[FloatArray, FloatArray]:
    """Add up ``(times, size, seconds)`` by size."""
    totals: dict[float, float] = defaultdict(float)
    for times, size, seconds in rows:
        totals[size] += times * seconds
    sizes = sorted(totals)
    return np.array(sizes), np.array([totals[size] for size in sizes])


def _bracket(axis: FloatArray, value: float) -> tuple[int, float]:
    """Return the lower neighbour on an axis and how far ``value`` is towards the upper one."""
    value = min(max(value, float(axis[0])), float(axis[-1]))
    low = min(int(np.searchsorted(axis, value, side="right")) - 1, len(axis) - 2)
    return low, float((value - axis[low]) / (axis[low + 1] - axis[low]))


def _relative_fit(columns: list[FloatArray], target: FloatArray) -> FloatArray:
    """Least squares on relative errors."""
    weighted = np.stack(columns, axis=1) / target[:, None]
    fitted = np.linalg.lstsq(weighted, np.ones(len(target)), rcond=None)[0]
    return np.asarray(fitted, dtype=np.float64)
