"""Who is asking: tenant, key and what the key allows. Knows no keys, no database and no transport.

Whoever checks keys puts an ``Identity`` into the ASGI scope's state; without one there is a single local tenant.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from backend.errors import BanyanError

SCOPES = ("chat", "models", "prompts:read", "prompts:write", "usage:read", "admin")
STATE_KEY = "identity"


class Identity(msgspec.Struct, frozen=True):
    """``key_id``: names the key in limits and logs, never the key itself; empty without keys."""

    tenant: str = "local"
    key_id: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)

    @property
    def sees_everything(self) -> bool:
        """Whether other tenants' nodes, lanes and figures may be shown."""
        return "admin" in self.scopes

    def require(self, scope: str) -> None:
        """Raises ``BanyanError`` (403, ``insufficient_scope``) when the key does not have ``scope``."""
        if scope not in self.scopes:
            raise BanyanError(f"this key does not have the scope {scope!r}", code="insufficient_scope", status=403)


LOCAL = Identity()


def identity_of(scope: Mapping[str, Any]) -> Identity:
    """Who is asking in this ASGI scope."""
    identity = scope.get("state", {}).get(STATE_KEY)
    return identity if isinstance(identity, Identity) else LOCAL
