"""Writes chips, racks and models as a file for ``--catalog``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hw_model.claim import Claim
from hw_model.specs import ChipSpec, ModelSpec, RackSpec


def chip_toml(chip: ChipSpec) -> str:
    """Return a chip with all its numbers."""
    return _spec_toml("chips", chip.name, {"title": chip.title}, chip.claims().items())


def chip_like_toml(chip: ChipSpec, base: ChipSpec) -> str:
    """Return a chip as one ``like`` another, with the numbers that are its own."""
    known = base.claims()
    own = [(field, claim) for field, claim in chip.claims().items() if claim != known.get(field)]
    return _spec_toml("chips", chip.name, {"title": chip.title, "like": base.name}, own)


def rack_toml(rack: RackSpec) -> str:
    """Return a rack."""
    claims = [("num_chips", rack.num_chips), ("domain_chips", rack.domain_chips)]
    return _spec_toml("racks", rack.name, {"title": rack.title, "chip": rack.chip}, claims)


def model_toml(model: ModelSpec) -> str:
    """Return a model."""
    sizes = model.model_dump(exclude={"name"}, exclude_none=True, exclude_defaults=True)
    attention = {"attention": model.attention.model_dump()}
    return _spec_toml("models", model.name, {**sizes, **attention}, ())


def write_whole(path: str, text: str) -> None:
    """Write a file so that nobody ever sees a part of it, whatever happens meanwhile."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _spec_toml(
    kind: str, name: str, keys: dict[str, Any], claims: Iterable[tuple[str, Claim]]
) -> str:
    table = f"{kind}.{json.dumps(name)}"
    lines = [f"[{table}]", *(f"{key} = {_value_toml(value)}" for key, value in keys.items())]
    for field, claim in claims:
        lines += ["", f"[{table}.{field}]", *_claim_toml(claim)]
    return "\n".join(lines) + "\n"


def _claim_toml(claim: Claim) -> list[str]:
    values = {"value": claim.value, "low": claim.low, "high": claim.high}
    numbers = [f"{key} = {value!r}" for key, value in values.items() if value is not None]
    return [*numbers, f"source = {json.dumps(claim.source)}", f'trust = "{claim.trust.value}"']


def _value_toml(value: Any) -> str:  # noqa: ANN401 - whatever a spec has at a key
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_value_toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}"
    return json.dumps(value)
