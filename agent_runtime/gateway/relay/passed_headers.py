"""Which headers of a request reach an engine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent_runtime.errors import InvalidRequestError

NOT_PASSED_ON = frozenset(
    {
        "host", "connection", "keep-alive", "proxy-authorization", "te", "trailer", "upgrade",
        "transfer-encoding", "content-length", "content-type", "accept-encoding", "accept",
        "user-agent", "x-session-id", "expect",
    }
)  # fmt: skip
"""Headers that are of this connection, or that the gateway sets itself."""
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""RFC 9110, 5.5: all but visible characters, spaces and tabs."""
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
        """Return those of a request's headers that pass.

        Raises:
            InvalidRequestError: One that no engine would take; names it.
        """
        passed = {name: value for name, value in headers.items() if name not in NOT_PASSED_ON}
        for name, value in passed.items():
            if _UNFIT.search(value) is not None:
                raise InvalidRequestError(
                    f"header {name}: control characters can't be passed on to an engine; "
                    "leave them out",
                    param=name,
                )
        if not self.with_keys:
            for name in KEYS:
                passed.pop(name, None)
        return passed
