"""The packaged facts, ``chips.toml``, ``racks.toml``, ``models.toml``, and a user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from hw_model.catalog.inheritance import resolve
from hw_model.errors import CatalogError, UnknownNameError
from hw_model.specs import ChipSpec, ModelSpec, RackSpec, Spec

SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Chips, racks and models by name."""

    chips: dict[str, ChipSpec]
    racks: dict[str, RackSpec]
    models: dict[str, ModelSpec]

    @classmethod
    def packaged(cls) -> Self:
        """Return the facts that come with this package."""
        return cls(
            chips=_parse(_packaged_tables("chips.toml"), ChipSpec, "chips.toml"),
            racks=_parse(_packaged_tables("racks.toml"), RackSpec, "racks.toml"),
            models=_parse(_packaged_tables("models.toml"), ModelSpec, "models.toml"),
        )

    def with_file(self, text: str, *, file: str) -> Self:
        """Return this catalog with a user's own chips, racks and models added or replaced.

        Args:
            text: TOML with tables ``[chips.NAME]``, ``[racks.NAME]``, ``[models.NAME]``, each in
                the form of the packaged files; ``like`` may name what is in this catalog.
            file: The file's name, for messages.

        Raises:
            CatalogError: Not TOML, or a key that is missing, unknown or of the wrong kind.
        """
        tables = _tables(text, file)
        unknown = sorted(set(tables) - {"chips", "racks", "models"})
        if unknown:
            raise CatalogError(
                f"{file}: {unknown[0]}: expected [chips.NAME], [racks.NAME] or [models.NAME]"
            )
        merged = type(self)(
            chips=_parse(tables.get("chips", {}), ChipSpec, file, "chips.", self.chips),
            racks=_parse(tables.get("racks", {}), RackSpec, file, "racks.", self.racks),
            models=_parse(tables.get("models", {}), ModelSpec, file, "models.", self.models),
        )
        for rack in merged.racks.values():
            if rack.chip not in merged.chips:
                known = ", ".join(sorted(merged.chips))
                raise CatalogError(
                    f"{file}: racks.{rack.name}.chip: unknown chip {rack.chip!r}; known: {known}"
                )
        return merged

    def chip(self, name: str) -> ChipSpec:
        """Return a chip by name.

        Raises:
            UnknownNameError: No such chip; lists those there are.
        """
        return _pick("chip", name, self.chips)

    def rack(self, name: str) -> RackSpec:
        """Return a rack by name.

        Raises:
            UnknownNameError: No such rack; lists those there are.
        """
        return _pick("rack", name, self.racks)

    def model(self, name: str) -> ModelSpec:
        """Return a model by name.

        Raises:
            UnknownNameError: No such model; lists those there are.
        """
        return _pick("model", name, self.models)


def _packaged_tables(file: str) -> dict[str, Any]:
    text = resources.files("hw_model.catalog").joinpath(file).read_text(encoding="utf-8")
    return _tables(text, file)


def _tables(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{file}: not TOML: {error}") from error


def _parse(
    tables: object,
    spec: type[SpecT],
    file: str,
    prefix: str = "",
    known: Mapping[str, SpecT] | None = None,
) -> dict[str, SpecT]:
    """Validate one table a spec, its key being the name; return them on top of the known ones."""
    if not isinstance(tables, dict):
        raise CatalogError(f"{file}: {prefix.rstrip('.')}: expected tables [{prefix}NAME]")
    specs = dict(known or {})
    complete = resolve(
        tables,
        {name: other.model_dump(exclude_none=True) for name, other in specs.items()},
        f"{file}: {prefix}",
        as_guesses=spec is ChipSpec,
    )
    for name, table in complete.items():
        if not isinstance(table, dict):
            raise CatalogError(f"{file}: {prefix}{name}: expected a table [{prefix}{name}]")
        try:
            specs[name] = spec.model_validate({**table, "name": name})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in (f"{prefix}{name}", *first["loc"]))
            raise CatalogError(f"{file}: {key}: {first['msg']}") from error
    return specs


def _pick(kind: str, name: str, specs: dict[str, SpecT]) -> SpecT:
    try:
        return specs[name]
    except KeyError:
        raise UnknownNameError(kind, name, specs) from None
