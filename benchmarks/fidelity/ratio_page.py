"""A page that sets predicted over measured times: one dot a measurement, on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

SIZE, LEFT, TOP = 460, 60, 16
COLOURS = ("#2563eb", "#d97706", "#059669", "#b91c1c", "#7c3aed", "#0e7490")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measurement: what it is of, and its seconds."""

    kind: str
    label: str
    measured_s: float
    predicted_s: float


def ratio_page(title: str, charts: Mapping[str, Sequence[Outcome]]) -> str:
    """Return a self-contained page with one chart a quantity."""
    style = (
        "body{font:15px system-ui;max-width:640px;margin:2em auto;padding:0 1em}"
        "h2{font-size:1.1em}text{font-size:11px;fill:#555}svg{width:100%}"
    )
    drawn = "".join(f"<h2>{escape(name)}</h2>{_chart(name, some)}" for name, some in charts.items())
    return (
        f"<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<style>{style}</style><h1>{escape(title)}</h1>{drawn}</html>"
    )


def _chart(name: str, outcomes: Sequence[Outcome]) -> str:
    every = [value for o in outcomes for value in (o.measured_s, o.predicted_s)]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    scale = SIZE / max(1, high - low)
    kinds = {kind: COLOURS[n % 6] for n, kind in enumerate(sorted({o.kind for o in outcomes}))}

    def at(seconds: float) -> float:
        return (math.log10(seconds) - low) * scale

    dots = "".join(
        f"<circle cx='{LEFT + at(o.measured_s):.1f}' cy='{TOP + SIZE - at(o.predicted_s):.1f}' "
        f"r='3' fill='{kinds[o.kind]}' fill-opacity='.55'><title>{escape(o.label)}</title></circle>"
        for o in outcomes
    )
    ticks = "".join(
        f"<text x='{LEFT + (p - low) * scale}' y='{TOP + SIZE + 16}' text-anchor='middle'>"
        f"{_said(p)}</text><text x='{LEFT - 6}' y='{TOP + SIZE - (p - low) * scale + 4}' "
        f"text-anchor='end'>{_said(p)}</text>"
        for p in range(low, high + 1)
    )
    legend = "".join(
        f"<text x='{LEFT + 12}' y='{TOP + 16 + 15 * n}' style='fill:{colour}'>{escape(kind)}</text>"
        for n, (kind, colour) in enumerate(kinds.items())
    )
    return (
        f"<svg viewBox='0 0 {LEFT + SIZE + 16} {TOP + SIZE + 40}' role='img' "
        f"aria-label='{escape(name)}, predicted over measured'>"
        f"<path d='M{LEFT} {TOP}V{TOP + SIZE}H{LEFT + SIZE}' fill='none' stroke='#888'/>"
        f"<path d='M{LEFT} {TOP + SIZE}L{LEFT + SIZE} {TOP}' stroke='#888' stroke-dasharray='4'/>"
        f"{ticks}{dots}{legend}<text x='{LEFT + SIZE / 2}' y='{TOP + SIZE + 34}' "
        "text-anchor='middle'>measured; the dashed line is predicted = measured</text></svg>"
    )


def _said(power: int) -> str:
    return f"{10**power:g} s" if power >= 0 else f"{10 ** (power + 3):g} ms"
