"""A quantity as people read it: three digits that matter and the unit they expect."""

from __future__ import annotations

import math

MISSING = "\N{EN DASH}"
"""What stands where there is no number: nothing finished, or nothing was measured."""

_MINUTE_S = 60
_HOUR_S = 3_600
_DAY_S = 86_400
_CALENDAR = ((_DAY_S, "d", _HOUR_S, "h"), (_HOUR_S, "h", _MINUTE_S, "m"), (_MINUTE_S, "m", 1, "s"))
_SUBSECOND = ((1.0, "s"), (1e-3, "ms"), (1e-6, "\N{MICRO SIGN}s"))
_COUNT_UNITS = ("", " M", " B", " T")
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_THOUSAND = 1_000
_MILLION = 1_000_000
_LARGEST_READABLE = 1e15
_HALF_A_STEP = 0.0005  # of a ratio, which is read in tenths of a percent


def seconds(value: float | None) -> str:
    """Render a duration: ``312 ms``, ``4.21 s``, ``12 m 05 s``, ``1 h 02 m``, ``3 d 04 h``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 0:
        return f"-{seconds(-value)}"
    if value >= _LARGEST_READABLE:
        return f"{value / _DAY_S:.2e} d"
    for large_s, large, small_s, small in _CALENDAR:
        # A little early, so that 59.97 s reads 1 m 00 s and never 60.0 s.
        if value >= large_s - small_s / 20:
            whole, rest = divmod(round(value / small_s), large_s // small_s)
            return f"{whole:,} {large} {rest:02d} {small}"
    return _below_a_minute(value)


def short_seconds(value: float) -> str:
    """Render a round duration with nothing to spare, as the ticks of an axis need it: ``5 m``."""
    if value >= _LARGEST_READABLE:
        return seconds(value)
    for large_s, large, small_s, small in _CALENDAR:
        if value >= large_s:
            whole, rest = divmod(round(value / small_s), large_s // small_s)
            return f"{whole:,} {large} {rest} {small}" if rest else f"{whole:,} {large}"
    for unit_s, unit in _SUBSECOND:
        if value >= unit_s * 0.9995:
            return f"{value / unit_s:.3g} {unit}"
    return f"{value * 1e9:.3g} ns" if value > 0 else "0"


def count(value: float | None) -> str:
    """Render how many: ``812``, ``43,120``, ``1.25 M``, ``3.40 B``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= _LARGEST_READABLE:
        return f"{value:.2e}"
    if abs(value) < _MILLION:
        return f"{value:,.0f}"
    scaled, unit = value / _MILLION, 1
    while abs(scaled) >= _THOUSAND - 0.5 and unit < len(_COUNT_UNITS) - 1:
        scaled, unit = scaled / _THOUSAND, unit + 1
    return f"{_three_digits(scaled)}{_COUNT_UNITS[unit]}"


def ratio(value: float | None) -> str:
    """Render a share of a whole: ``93.4 %``. Only an exact 0 or 1 reads ``0 %`` or ``100 %``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= _LARGEST_READABLE:
        return f"{value:.2e}x"
    if value in {0.0, 1.0}:
        return f"{value * 100:.0f} %"
    if 0 < value < _HALF_A_STEP:
        return "<0.1 %"
    if 1 - _HALF_A_STEP <= value < 1:
        return ">99.9 %"
    return f"{value * 100:.1f} %"


def factor(value: float | None) -> str:
    """Render how many times as much: ``1.42x``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value >= _THOUSAND:
        return f"{count(value)}x"
    return f"{_three_digits(value)}x"


def num_bytes(value: float | None) -> str:
    """Render an amount of data in decimal units: ``1.25 GB``."""
    if value is None or not math.isfinite(value):
        return MISSING
    scaled, unit = value, 0
    while abs(scaled) >= _THOUSAND - 0.5 and unit < len(_BYTE_UNITS) - 1:
        scaled, unit = scaled / _THOUSAND, unit + 1
    if abs(scaled) >= _MILLION:
        return f"{scaled:.2e} {_BYTE_UNITS[unit]}"
    text = f"{scaled:.0f}" if unit == 0 else _three_digits(scaled)
    return f"{text} {_BYTE_UNITS[unit]}"


def rate(value: float | None, unit: str) -> str:
    """Render how many a second: ``1,240 turns/s``."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = count(value) if value >= _THOUSAND else _three_digits(value)
    return f"{text} {unit}/s"


def _below_a_minute(value: float) -> str:
    for unit_s, unit in _SUBSECOND:
        if value >= unit_s * 0.9995:
            return f"{_three_digits(value / unit_s)} {unit}"
    return "0 s" if value == 0 else f"<1 {_SUBSECOND[-1][1]}"


def _three_digits(value: float) -> str:
    """Round to three digits without an exponent; whole numbers keep all of theirs."""
    for below, digits in ((9.995, 2), (99.95, 1)):
        if abs(value) < below:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"
