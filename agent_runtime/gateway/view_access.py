"""Who may see the rack: everybody where there are no keys, else who has the dashboard's."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from agent_runtime.errors import AuthenticationError, ConfigError, NotAllowedError
from agent_runtime.gateway.tenants import MIN_KEY_LENGTH, TenantKeys, given_key

KEY_OPTION, KEY_VARIABLE = "--dashboard-key-file", "PANJIU_DASHBOARD_KEY"
HOW_TO_SET = f"start the server with {KEY_OPTION} FILE, or with the key in {KEY_VARIABLE}"


class ViewAccess:
    """The key of a dashboard; only its digest is kept.

    Args:
        key: What the view is shown for; None lets everybody see it unless there are tenants.
        tenants: Whose keys the endpoint takes; theirs don't open the view, which shows all of them.
    """

    def __init__(self, key: str | None = None, tenants: TenantKeys | None = None) -> None:
        self._digest = None if key is None else sha256(key.encode()).digest()
        self._tenants = tenants

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise unless a request with these headers may see the rack.

        Raises:
            AuthenticationError: It has no key, or one that nobody has.
            NotAllowedError: It has a tenant's, or there is none that would do.
        """
        if self._digest is None:
            if self._tenants is not None:
                raise NotAllowedError(
                    "this server takes API keys, and the view shows all their tenants, so it needs "
                    f"a key of its own, and has none: {HOW_TO_SET}"
                )
            return
        given = given_key(headers)
        if given is None:
            raise AuthenticationError("no dashboard key; send `Authorization: Bearer KEY`")
        digest = sha256(given.encode("latin-1", "replace")).digest()
        if hmac.compare_digest(digest, self._digest):
            return
        if self._tenants is not None and self._tenants.knows(given):
            raise NotAllowedError(
                "a tenant's API key does not open the view, which shows all tenants: send the "
                f"dashboard's own key (the server's {KEY_OPTION} or {KEY_VARIABLE})"
            )
        raise AuthenticationError(
            "this is not the dashboard's key; ask whoever runs the server for it"
        )


def read_dashboard_key(
    path: Path | None, variable: str | None, tenants: TenantKeys | None
) -> str | None:
    """Return the key of the dashboard, None where none is set.

    Args:
        path: A file with the key alone, if one is named; it counts before the variable.
        variable: What ``PANJIU_DASHBOARD_KEY`` has.
        tenants: Whose keys are taken.

    Raises:
        ConfigError: The file can't be read, or what it has can't be a key; the message has no key.
    """
    if path is not None:
        place = f"{KEY_OPTION} {path}"
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{place}: can't be read: {error}") from error
    elif variable is not None:
        place, key = KEY_VARIABLE, variable.strip()
    else:
        return None
    if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{place}: expected one key of {MIN_KEY_LENGTH} or more ASCII characters, no spaces"
        )
    if tenants is not None and tenants.knows(key):
        raise ConfigError(f"{place}: it is a tenant's key too; choose another one")
    return key
