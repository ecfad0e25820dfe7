"""Registered public prompts: which leading blocks of a sequence everybody may share. Knows no pages and no nodes.

Whatever begins like a registered prompt shares the blocks that are wholly inside of it, however far that goes: these
tokens are public text. Digests find the prompt, its tokens decide.
"""

from array import array
from struct import iter_unpack

from radix.errors import CacheError
from radix.hashing import BlockHash, Key, derive_key, derive_seed, digest_blocks
from radix.packing import PACKED_BYTES, TOKEN_BYTES, pack

ROOT = "public"
"""Name of the root of public blocks. Those of tenants begin with a digit, so none is called so."""


PUBLIC = "\0public"
"""The name under which public pages are accounted; no tenant can have it."""


class PublicPrompts:
    """The prompts by their block digests. Registering costs O(prompt tokens)."""

    def __init__(self, page_size: int, secret: bytes, block_hash: BlockHash) -> None:
        self.page_size = page_size
        self._block_hash = block_hash
        self._key = derive_key(secret, "public")
        self.seed = derive_seed(self._key)
        self._prompts: dict[bytes, Key] = {}
        # Digest of each block of each prompt -> prompts that have it (prompts share beginnings), the first one decides.
        self._blocks: dict[int, list[Key]] = {}

    def __len__(self) -> int:
        return len(self._prompts)

    def key(self, tokens: bytes) -> Key:
        """A key in which every block is public."""
        packed = pack(tokens)
        key = Key(packed, PUBLIC, ROOT, self._key, self.seed, len(packed) // (self.page_size * PACKED_BYTES))
        digest_blocks(key, self.page_size, self._block_hash)
        return key

    def register(self, tokens: bytes) -> Key:
        """Make ``tokens`` public; again is fine. Raises ``CacheError`` for less than a page: it would share nothing."""
        if len(tokens) < self.page_size * TOKEN_BYTES:
            raise CacheError(
                f"a public prompt needs at least a page of {self.page_size} tokens, got {len(tokens) // TOKEN_BYTES}"
            )
        known = self._prompts.get(tokens)
        if known is not None:
            return known
        key = self._prompts[tokens] = self.key(tokens)
        for digest in key.digests:
            self._blocks.setdefault(digest, []).append(key)
        return key

    def unregister(self, tokens: bytes) -> bool:
        """New sequences no longer share it; False when it was not registered. Running ones keep what they have."""
        key = self._prompts.pop(tokens, None)
        if key is None:
            return False
        for digest in set(key.digests):
            left = [prompt for prompt in self._blocks[digest] if prompt is not key]
            if left:
                self._blocks[digest] = left
            else:
                del self._blocks[digest]
        return True

    def shared_blocks(self, packed: bytearray) -> "array[int]":
        """Digests of the leading blocks of ``packed`` ids that lie within a registered prompt. O(those blocks)."""
        digests: array[int] = array("Q")
        if not self._blocks:
            return digests
        digest, last = self.seed, None
        width, known, block_hash = self.page_size * PACKED_BYTES, self._blocks, self._block_hash
        for (block,) in iter_unpack(f"{width}s", packed[: len(packed) // width * width]):
            digest = block_hash(block, digest)
            prompts = known.get(digest)
            if prompts is None:
                break
            digests.append(digest)
            last = prompts
        end = len(digests) * width
        if last is not None and not any(prompt.packed.startswith(packed[:end]) for prompt in last):
            return array("Q")  # a digest collision; sharing nothing is always right
        return digests
