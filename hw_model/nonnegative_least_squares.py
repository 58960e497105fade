"""Least squares with unknowns that can't be negative, for a handful of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MAX_ROUNDS_PER_UNKNOWN = 10
TOLERANCE = 1e-12


def nonnegative_least_squares(matrix: FloatArray, target: FloatArray) -> FloatArray:
    """Return the ``x >= 0`` that minimises ``|matrix @ x - target|``.

    Args:
        matrix: [equations, unknowns], columns of similar size.
        target: [equations].

    Source:
        Lawson and Hanson, "Solving Least Squares Problems", 1974, algorithm NNLS.
    """
    num_unknowns = matrix.shape[1]
    free = np.zeros(num_unknowns, dtype=bool)
    x = np.zeros(num_unknowns)
    least = TOLERANCE * float(np.abs(matrix.T @ target).max(initial=1.0))
    for _ in range(MAX_ROUNDS_PER_UNKNOWN * num_unknowns):
        gradient = np.where(free, -np.inf, matrix.T @ (target - matrix @ x))
        if free.all() or gradient.max() <= least:
            break
        free[int(gradient.argmax())] = True
        x = _within_bounds(matrix, target, x, free)
    return x


def _within_bounds(
    matrix: FloatArray, target: FloatArray, x: FloatArray, free: NDArray[np.bool_]
) -> FloatArray:
    """Solve for the free unknowns; those that would leave the bound stay on it, no longer free."""
    while free.any():
        solution = np.zeros_like(x)
        solution[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
        outside = free & (solution <= 0)
        if not outside.any():
            return solution
        steps = x[outside] / np.maximum(x[outside] - solution[outside], np.finfo(float).tiny)
        x = x + steps.min() * (solution - x)
        free &= ~(outside & (x <= TOLERANCE * max(1.0, float(x.max()))))
        x = np.where(free, x, 0.0)
    return np.zeros_like(x)
