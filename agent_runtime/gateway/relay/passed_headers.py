"""Which headers of a request reach an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOT_PASSED_ON = frozenset(
    {
        "host", "connection", "keep-alive", "proxy-authorization", "te", "trailer", "upgrade",
        "transfer-encoding", "content-length", "content-type", "accept-encoding", "accept",
        "user-agent", "x-session-id", "expect",
    }
)  # fmt: skip
"""Headers that are of this connection, or that the gateway sets itself."""
KEYS = frozenset({"authorization", "x-api-key"})


@dataclass(frozen=True, slots=True)
class PassedHeaders:
    """What passes.

    Attributes:
        with_keys: Whether callers' keys do; not where they are the gateway's own, nor where the
            gateway has one for the engines.
    """

    with_keys: bool

    def of(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return those of a request's headers that pass."""
        passed = {name: value for name, value in headers.items() if name not in NOT_PASSED_ON}
        if not self.with_keys:
            for name in KEYS:
                passed.pop(name, None)
        return passed
