"""Every replica of one run side by side, so that an uneven load is seen at a glance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent_runtime.measurement.summary import ReplicaStats
from agent_runtime.report import quantities
from agent_runtime.report.markup import escaped

_WIDTH, _LABELS, _RIGHT = 1060.0, 168.0, 6.0
_BAR, _ROW, _TOP, _BOTTOM = 34.0, 54.0, 8.0, 22.0
_MAX_IDS = 32


@dataclass(frozen=True, slots=True)
class _Trait:
    name: str
    read: Callable[[ReplicaStats], float]
    say: Callable[[float], str]
    is_share: bool


_TRAITS = (
    _Trait("KV blocks in use", lambda r: r.kv_used_ratio, quantities.ratio, is_share=True),
    _Trait("Busy", lambda r: r.busy_ratio, quantities.ratio, is_share=True),
    _Trait("Prefix hit", lambda r: r.prefix_hit_ratio, quantities.ratio, is_share=True),
    _Trait("Turns", lambda r: float(r.turns), quantities.count, is_share=False),
)


def replica_panel(replicas: Sequence[ReplicaStats]) -> str:
    """Return an SVG with one strip a trait and one bar a replica, in the order given.

    Shares are drawn against 100 %, turns against the busiest replica.
    """
    if not replicas:
        return '<p class="muted">No replicas were recorded.</p>'
    height = _TOP + _ROW * len(_TRAITS) + _BOTTOM - (_ROW - _BAR)
    pitch = (_WIDTH - _LABELS - _RIGHT) / len(replicas)
    parts = [_strip(trait, replicas, _TOP + i * _ROW, pitch) for i, trait in enumerate(_TRAITS)]
    name = f"Per replica: {', '.join(trait.name for trait in _TRAITS)}; {len(replicas)} replicas"
    return (
        f'<svg class="chart replicas" viewBox="0 0 {_WIDTH:g} {height:g}" role="img" '
        f'aria-label="{escaped(name)}" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}{_ids(replicas, height - 6, pitch)}</svg>"
    )


def _strip(trait: _Trait, replicas: Sequence[ReplicaStats], top: float, pitch: float) -> str:
    values = [trait.read(replica) for replica in replicas]
    full = 1.0 if trait.is_share else max(values) or 1.0
    spread = f"{trait.say(min(values))} to {trait.say(max(values))}"
    width = pitch * 0.78
    parts = [
        f'<text class="head" x="0" y="{top + 14:g}">{trait.name}</text>',
        f'<text x="0" y="{top + 29:g}">{spread}</text>',
    ]
    for index, (replica, value) in enumerate(zip(replicas, values, strict=True)):
        x = _LABELS + index * pitch
        tall = min(1.0, max(0.0, value / full)) * _BAR
        said = f"Replica {replica.replica_id}\n{trait.name}: {trait.say(value)}"
        parts.append(
            f'<g><title>{escaped(said)}</title><path class="track" '
            f'd="M{x:.1f} {top:g}h{width:.1f}v{_BAR:g}h-{width:.1f}z"/>'
            f'<path class="bar" d="M{x:.1f} {top + _BAR:g}h{width:.1f}v-{tall:.1f}h-{width:.1f}z"/>'
            "</g>"
        )
    return "".join(parts)


def _ids(replicas: Sequence[ReplicaStats], y: float, pitch: float) -> str:
    every = -(-len(replicas) // _MAX_IDS)
    centre = _LABELS + pitch * 0.39
    ids = "".join(
        f'<text class="x" x="{centre + index * pitch:.1f}" y="{y:g}">{replica.replica_id}</text>'
        for index, replica in enumerate(replicas)
        if index % every == 0
    )
    return f'<text x="0" y="{y:g}">Replica</text>{ids}'
