"""Errors of the hardware model; the class says who is at fault, the message says what to do.

HardwareModelError
├─ ConfigError          a name, number or catalog file the caller gave
│  ├─ UnknownNameError  lists the names that are known
│  ├─ CatalogError      a catalog file; names the file and the key
│  ├─ DoesNotFitError   a model that does not fit; says how much is missing and what would fit
│  └─ TooLittleMeasuredError  too few kinds of measurements for a fit
└─ InternalError        our bug
   └─ InvariantError    raised by ``check_invariants()``
"""

from __future__ import annotations

from collections.abc import Iterable


class HardwareModelError(Exception):
    """Base of all errors raised by this package."""


class ConfigError(HardwareModelError):
    """A name, number or catalog file the caller gave can't be used."""


class UnknownNameError(ConfigError):
    """A name that is not in the catalog."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")


class CatalogError(ConfigError):
    """A catalog file that does not say what it must."""


class DoesNotFitError(ConfigError):
    """The weights leave no room for a useful KV cache, or don't fit at all."""


class TooLittleMeasuredError(ConfigError):
    """What was measured is not enough for a fit."""

    def __init__(self, missing: Iterable[str]) -> None:
        super().__init__(
            f"too little was measured for a fit: nothing of {', '.join(missing)}; measure longer"
        )


class InternalError(HardwareModelError):
    """This should never happen; please report it as a bug."""


class InvariantError(InternalError):
    """State that contradicts itself; the message names the invariant."""
