"""Whose key a request comes with; without any keys, everybody is one tenant.

The file is TOML, a list of keys a tenant:

    [tenants]
    research = ["sk-research-1", "sk-research-2"]
"""

from __future__ import annotations

import hmac
import re
import tomllib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_runtime.errors import AuthenticationError, ConfigError
from agent_runtime.gateway.error_mapping import error_response
from scheduler.events import NO_TENANT
from scheduler.ids import TenantId

MIN_KEY_LENGTH = 8
GUARDED = ("/v1/", "/tokenize", "/detokenize")
"""As vLLM, which leaves health and metrics open."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class TenantKeys:
    """Keys of tenants; only their digests are kept.

    Args:
        keys: By tenant.
        share_kv: Whether tenants find each other's KV, see ``kv_salt``.
    """

    def __init__(self, keys: Mapping[TenantId, Sequence[str]], *, share_kv: bool = False) -> None:
        self.share_kv = share_kv
        self._digests = [
            (sha256(key.encode()).digest(), tenant_id)
            for tenant_id, own in keys.items()
            for key in own
        ]

    def tenant_of(self, headers: Mapping[str, str]) -> TenantId:
        """Return whose key a request has; it takes as long whichever key it is.

        Raises:
            AuthenticationError: None, or one that nobody has.
        """
        given = given_key(headers)
        if given is None:
            raise AuthenticationError(
                "no API key; send `Authorization: Bearer KEY` or `x-api-key: KEY`"
            )
        found = self._find(given)
        if found is None:
            raise AuthenticationError("the API key is not known here; ask whoever runs the server")
        return found

    def knows(self, key: str) -> bool:
        """Return whether a key is somebody's."""
        return self._find(key) is not None

    def _find(self, given: str) -> TenantId | None:
        digest = sha256(given.encode("latin-1", "replace")).digest()
        found: TenantId | None = None
        for known, tenant_id in self._digests:
            if hmac.compare_digest(known, digest):
                found = tenant_id
        return found


def read_tenant_keys(path: Path, *, share_kv: bool = False) -> TenantKeys:
    """Read the file.

    Args:
        path: Of it.
        share_kv: As ``TenantKeys`` has it.

    Raises:
        ConfigError: It can't be read as one; the message has no keys.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    tenants = tables.get("tenants")
    if not isinstance(tenants, dict) or not tenants:
        raise ConfigError(f'{path}: expected a table [tenants] with lines such as name = ["KEY"]')
    seen: dict[str, str] = {}
    for name, keys in tenants.items():
        _check_tenant(path, name, keys, seen)
    by_tenant = {TenantId(name): keys for name, keys in tenants.items()}
    return TenantKeys(by_tenant, share_kv=share_kv)


def _check_tenant(path: Path, name: str, keys: object, seen: dict[str, str]) -> None:
    place = f"{path}: tenants.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: names are letters, digits, '_', '.' and '-', 64 at the most")
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
        raise ConfigError(f"{place}: expected a list of keys, one at least")
    for number, key in enumerate(keys, start=1):
        if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"{place}: key {number}: expected {MIN_KEY_LENGTH} or more ASCII characters, "
                "no spaces"
            )
        if key in seen:
            raise ConfigError(f"{place}: key {number} is one of {seen[key]}'s too; keys differ")
        seen[key] = name


class Authentication:
    """ASGI middleware: sets ``request.state.tenant_id``, and answers 401 for those without a key.

    Args:
        app: What is guarded.
        keys: Of the tenants.
    """

    def __init__(self, app: ASGIApp, keys: TenantKeys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].startswith(GUARDED):
            try:
                tenant_id = self._keys.tenant_of(Headers(scope=scope))
            except AuthenticationError as error:
                await error_response(error, scope["path"])(scope, receive, send)
                return
            scope.setdefault("state", {})["tenant_id"] = tenant_id
        await self._app(scope, receive, send)


def tenant_of(request: Request) -> TenantId:
    """Return whose request it is."""
    state: Mapping[str, TenantId] = request.scope.get("state") or {}
    return state.get("tenant_id", NO_TENANT)


def given_key(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request comes with, None if it has none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key", "").strip() or None
