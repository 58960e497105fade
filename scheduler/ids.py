"""The names of things. Ids come from whoever owns the thing; nothing here counts."""

from __future__ import annotations

from typing import NewType

SessionId = NewType("SessionId", str)
TurnId = NewType("TurnId", str)
ReplicaId = NewType("ReplicaId", int)
TenantId = NewType("TenantId", str)
