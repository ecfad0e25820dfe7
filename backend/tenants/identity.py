"""Who asks: what a request is allowed, once its key was recognized. Pure."""

import msgspec

from backend.tenants.names import LOCAL

SCOPES = ("chat", "models", "prompts:read", "prompts:write", "usage:read", "admin")
DEFAULT_SCOPES = frozenset({"chat", "models", "prompts:read"})


class Identity(msgspec.Struct, frozen=True):
    """``key_id`` is empty for the local tenant. ``namespace`` divides what a tenant's keys share in the cache."""

    tenant: str
    key_id: str
    scopes: frozenset[str]
    namespace: str = ""

    @property
    def actor(self) -> str:
        """As audit writes it."""
        return f"key:{self.key_id}" if self.key_id else LOCAL


LOCAL_IDENTITY = Identity(LOCAL, "", frozenset(SCOPES))
"""Everybody, on a server without tenants that listens on loopback only."""
