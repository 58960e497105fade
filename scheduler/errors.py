"""Errors of the scheduler; the class says who is at fault, the message says what to do.

SchedulerError
├─ ConfigError             an option the caller gave
│  └─ UnknownPolicyError   lists the policies that are known
└─ InternalError           our bug, or a driver that breaks the contract
   └─ InvariantError       events that contradict each other; raised also by ``check_invariants()``
"""

from __future__ import annotations

from collections.abc import Iterable


class SchedulerError(Exception):
    """Base of all errors raised by this package."""


class ConfigError(SchedulerError):
    """An option the caller gave can't be used."""


class UnknownPolicyError(ConfigError):
    """A policy name that is not known."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown policy {name!r}; known: {', '.join(sorted(known))}")


class InternalError(SchedulerError):
    """This should never happen; please report it as a bug."""


class InvariantError(InternalError):
    """State or events that contradict each other; the message names ids."""
