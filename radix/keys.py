"""Makes the keys that the cache is asked with: which blocks are public, and whose the others are. Knows no pages."""

from radix.errors import CacheError
from radix.hashing import BlockHash, Key, derive_key, derive_seed, digest_blocks
from radix.packing import pack
from radix.public import ROOT, PublicPrompts

_NAMES = 4096  # of tenants and namespaces are remembered


class Keys:
    """``secret`` (0-64 random bytes) seeds the digests; ``public``: the prompts that everybody shares."""

    def __init__(self, page_size: int, secret: bytes, block_hash: BlockHash) -> None:
        self.public = PublicPrompts(page_size, secret, block_hash)
        self.block_hash = block_hash
        self._page_size = page_size
        self._secret = secret
        self._private: dict[tuple[str, str], tuple[str, bytes, int]] = {}

    def make(self, tokens: bytes, tenant: str, namespace: str) -> Key:
        """As ``PrefixCache.key``."""
        key = self.undigested(tokens, tenant, namespace)
        shared = self.public.shared_blocks(key.packed)
        if shared:
            key.root, key.seed, key.public_blocks, key.digests = ROOT, self.public.seed, len(shared), shared
        self.digest(key)
        return key

    def undigested(self, tokens: bytes, tenant: str, namespace: str) -> Key:
        """A key of the tenant's own that finds nothing yet. Raises ``CacheError`` as ``make``."""
        if tenant.startswith("\0"):
            raise CacheError(f"{tenant!r} is not a tenant's name")
        root, private_key, seed = self._names(tenant, namespace)
        return Key(pack(tokens), tenant, root, private_key, seed, 0)

    def digest(self, key: Key) -> None:
        """Bring the key's digests up to date. O(new tokens)."""
        digest_blocks(key, self._page_size, self.block_hash)

    def _names(self, tenant: str, namespace: str) -> tuple[str, bytes, int]:
        """Root, key and seed of a tenant's own blocks in one namespace."""
        names = self._private.get((tenant, namespace))
        if names is None:
            key = derive_key(self._secret, "tenant", tenant, namespace)
            names = (f"{len(tenant)}:{tenant}:{namespace}", key, derive_seed(key))
            if len(self._private) >= _NAMES:
                self._private.clear()  # only a memo: they are derived again
            self._private[tenant, namespace] = names
        return names
