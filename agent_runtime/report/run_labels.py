"""What tells the runs of one report apart: a short name and a colour for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.measurement.summary import RunDetail

_TRAITS = ("band", "policy", "model", "rack", "seed")
_BANDS = ("low", "base", "high")
_CYCLE = ("c-base", "c-low", "c-high", "c-four", "c-five", "c-six")


@dataclass(frozen=True, slots=True)
class RunLabel:
    """How one run appears wherever runs are compared.

    Attributes:
        name: The traits in which the runs differ, e.g. ``low`` or ``panjiu / high``; unique.
        css_class: Class of its colour and dash. One of a fixed few: never made of user text.
    """

    name: str
    css_class: str


def label_runs(runs: Sequence[RunDetail]) -> tuple[RunLabel, ...]:
    """Return one label a run. Bands keep their own colours; other runs take them in turn."""
    differing = [trait for trait in _TRAITS if len(set(_values(runs, trait))) > 1] or ["band"]
    names = [" / ".join(_value(run, trait) for trait in differing) for run in runs]
    if len(set(names)) < len(names):
        names = [f"{name} #{number}" for number, name in enumerate(names, start=1)]
    by_band = differing == ["band"] and set(names) <= set(_BANDS)
    return tuple(
        RunLabel(name, f"c-{name}" if by_band else _CYCLE[index % len(_CYCLE)])
        for index, name in enumerate(names)
    )


def shared_traits(runs: Sequence[RunDetail]) -> str:
    """Return policy, model and rack as one phrase; a trait that varies reads ``2 policies``."""
    policy = _one_or_many(runs, "policy", "{} policy", "{} policies")
    model = _one_or_many(runs, "model", "{}", "{} models")
    rack = _one_or_many(runs, "rack", "{}", "{} racks")
    return f"{policy}, {model} on {rack}"


def base_index(runs: Sequence[RunDetail]) -> int:
    """Return which run the headlines are of: the first of the base band, else the first."""
    return next((i for i, run in enumerate(runs) if run.summary.band == "base"), 0)


def _values(runs: Sequence[RunDetail], trait: str) -> list[str]:
    return [_value(run, trait) for run in runs]


def _value(run: RunDetail, trait: str) -> str:
    return str(getattr(run.summary, trait))


def _one_or_many(runs: Sequence[RunDetail], trait: str, one: str, many: str) -> str:
    values = set(_values(runs, trait))
    return one.format(*values) if len(values) == 1 else many.format(len(values))
