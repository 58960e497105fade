"""The packaged facts: ``chips.toml``, ``racks.toml``, ``models.toml``, validated on load."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import TypeVar

from pydantic import ValidationError

from hw_model.errors import CatalogError, UnknownNameError
from hw_model.specs import ChipSpec, ModelSpec, RackSpec, _Spec

SpecT = TypeVar("SpecT", bound=_Spec)


def load_chip(name: str) -> ChipSpec:
    """Return a chip by name.

    Raises:
        UnknownNameError: No such chip; lists those there are.
    """
    return _pick("chip", name, _load("chips.toml", ChipSpec))


def load_rack(name: str) -> RackSpec:
    """Return a rack by name.

    Raises:
        UnknownNameError: No such rack; lists those there are.
    """
    return _pick("rack", name, _load("racks.toml", RackSpec))


def load_model(name: str) -> ModelSpec:
    """Return a model by name.

    Raises:
        UnknownNameError: No such model; lists those there are.
    """
    return _pick("model", name, _load("models.toml", ModelSpec))


def rack_names() -> list[str]:
    """Return the names of the racks, sorted."""
    return sorted(_load("racks.toml", RackSpec))


def model_names() -> list[str]:
    """Return the names of the models, sorted."""
    return sorted(_load("models.toml", ModelSpec))


def parse_catalog(text: str, spec: type[SpecT], *, file: str) -> dict[str, SpecT]:
    """Read a catalog file: one table a spec, the table's key being its name.

    Args:
        text: The TOML.
        spec: What each table must be.
        file: The file's name, for messages.

    Raises:
        CatalogError: Not TOML, or a key that is missing, unknown or of the wrong kind.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{file}: not TOML: {error}") from error
    specs = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise CatalogError(f"{file}: {name}: expected a table [{name}]")
        try:
            specs[name] = spec.model_validate({"name": name, **table})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in (name, *first["loc"]))
            raise CatalogError(f"{file}: {key}: {first['msg']}") from error
    return specs


def _load(file: str, spec: type[SpecT]) -> dict[str, SpecT]:
    text = resources.files("hw_model.catalog").joinpath(file).read_text(encoding="utf-8")
    return parse_catalog(text, spec, file=file)


def _pick(kind: str, name: str, specs: dict[str, SpecT]) -> SpecT:
    try:
        return specs[name]
    except KeyError:
        raise UnknownNameError(kind, name, specs) from None
