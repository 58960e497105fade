"""``like = "NAME"``: a chip, rack or model that is another one but for what its table says.

A number taken over from another chip is a guess about this one: what was measured there is inferred
here, and its source says whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from hw_model.claim import Trust
from hw_model.errors import CatalogError

LIKE = "like"
Table: TypeAlias = Any
"""Whatever TOML has at a key; what is wrong is left to the specs to say."""

_KNOWN_TRUSTS = {trust.value for trust in Trust} - {Trust.ASSUMED.value}


def resolve(
    tables: Mapping[str, Any],
    known: Mapping[str, Mapping[str, Any]],
    where: str,
    *,
    as_guesses: bool,
) -> dict[str, Any]:
    """Return the tables with every ``like`` filled in.

    Args:
        tables: Tables of one file by name, as read.
        known: Complete tables of specs from elsewhere that ``like`` may name.
        where: File and prefix, for messages.
        as_guesses: Whether numbers taken over are only guesses, as with chips.

    Raises:
        CatalogError: ``like`` names nothing known, or goes round in a circle.
    """
    complete: dict[str, Any] = {}

    def fill(name: str, path: tuple[str, ...]) -> Table:
        if name in complete:
            return complete[name]
        table = tables[name]
        if not isinstance(table, dict) or LIKE not in table:
            return complete.setdefault(name, table)
        parent = table[LIKE]
        if parent in (*path, name) and parent not in known:
            raise CatalogError(f"{where}{name}.like: {parent!r} is like {name!r} in turn")
        if isinstance(parent, str) and parent in tables and parent not in (*path, name):
            inherited = fill(parent, (*path, name))
        elif isinstance(parent, str) and parent in known:
            inherited = known[parent]
        else:
            names = ", ".join(sorted({*tables, *known} - {name}))
            raise CatalogError(f"{where}{name}.like: no {parent!r} here; known: {names}")
        own = {key: value for key, value in table.items() if key != LIKE}
        if as_guesses:
            inherited = {key: _guess(value, parent) for key, value in inherited.items()}
        return complete.setdefault(name, {**inherited, **own})

    for name in tables:
        fill(name, ())
    return complete


def _guess(value: Table, owner: str) -> Table:
    """Return a claim about ``owner`` as one about another chip; anything else as it is."""
    if not isinstance(value, dict) or "trust" not in value or "source" not in value:
        return value
    source = value["source"]
    if not source.startswith("as "):
        source = f"as {owner}: {source}"
    trust = Trust.INFERRED.value if value["trust"] in _KNOWN_TRUSTS else value["trust"]
    return {**value, "source": source, "trust": trust}
