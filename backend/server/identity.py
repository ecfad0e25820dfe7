"""Who is asking in an ASGI scope. Whoever checks keys puts an ``Identity`` into the scope's state."""

from collections.abc import Mapping
from typing import Any

from backend.tenants.identity import LOCAL as LOCAL
from backend.tenants.identity import SCOPES as SCOPES
from backend.tenants.identity import Identity as Identity

STATE_KEY = "identity"


def identity_of(scope: Mapping[str, Any]) -> Identity:
    """Who is asking; the local tenant where nobody checks keys."""
    identity = scope.get("state", {}).get(STATE_KEY)
    return identity if isinstance(identity, Identity) else LOCAL
