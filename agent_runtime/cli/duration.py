"""Durations as people write them."""

from __future__ import annotations

import argparse
import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h)")


def natural_duration(text: str) -> float:
    """Parse ``90``, ``90s``, ``5m``, ``1h30m`` or ``250ms`` to seconds >= 0."""
    try:
        value = float(text)
    except ValueError:
        parts = _PART.findall(text)
        if "".join(number + unit for number, unit in parts) != text or not parts:
            value = -1.0
        else:
            value = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"expected a duration such as 90s, 5m or 1h30m, got {text!r}"
        )
    return value


def positive_duration(text: str) -> float:
    """Parse the same, but more than 0."""
    value = natural_duration(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a duration longer than 0, got {text!r}")
    return value
