"""Keys: made, hashed, recognized. Pure; randomness is an argument. The key itself is shown once and kept nowhere."""

import hashlib
import hmac
import secrets
from collections.abc import Callable

import msgspec

PREFIX = "sk-"
RANDOM_BYTES = 32
MOST_CHARS = 200


class Key(msgspec.Struct, frozen=True):
    """A key as the database keeps it. ``hash``: SHA-256, enough for 256 random bits. Times are Unix seconds."""

    id: str
    tenant: str
    hash: bytes
    last_four: str
    label: str
    scopes: frozenset[str]
    namespace: str
    created: int
    expires: int | None = None
    revoked: int | None = None

    def is_live(self, now: float) -> bool:
        """Neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def new_secret(tenant: str, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """``sk-<tenant>-<32 random bytes in hex>``."""
    return f"{PREFIX}{tenant}-{random_bytes(RANDOM_BYTES).hex()}"


def tenant_of(secret: str) -> str | None:
    """The tenant whose key this would be; None when it has not the form of a key."""
    if not secret.startswith(PREFIX) or len(secret) > MOST_CHARS:
        return None
    tenant, _, rest = secret[len(PREFIX) :].rpartition("-")
    return tenant if tenant and len(rest) == 2 * RANDOM_BYTES else None


def hash_of(secret: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def matches(key: Key, hashed: bytes) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(key.hash, hashed)
