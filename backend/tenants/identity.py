"""Who asks, and what the key allows. Knows no keys, no database and no transport."""

import msgspec

from backend.errors import BanyanError
from backend.tenants.names import LOCAL as LOCAL_TENANT

SCOPES = ("chat", "models", "prompts:read", "prompts:write", "usage:read", "admin")
DEFAULT_SCOPES = frozenset({"chat", "models", "prompts:read"})


class Identity(msgspec.Struct, frozen=True):
    """``key_id``: names the key in limits and logs, never the key itself; empty without keys. ``namespace``: keys of a
    tenant with different ones share nothing private in the cache."""

    tenant: str = LOCAL_TENANT
    key_id: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)
    namespace: str = ""

    @property
    def actor(self) -> str:
        """As audit writes it."""
        return f"key:{self.key_id}" if self.key_id else LOCAL_TENANT

    @property
    def sees_everything(self) -> bool:
        """Whether other tenants' nodes, lanes and figures may be shown."""
        return "admin" in self.scopes

    def require(self, scope: str) -> None:
        """Raises ``BanyanError`` (403, ``insufficient_scope``) when the key does not have ``scope``."""
        if scope not in self.scopes:
            raise BanyanError(f"this key does not have the scope {scope!r}", code="insufficient_scope", status=403)


LOCAL = Identity()
"""Everybody, on a server without tenants that listens on loopback only."""
