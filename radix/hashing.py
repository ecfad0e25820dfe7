"""Chained, seeded block digests: what finds a block of tokens in the tree. Knows no pages and no nodes.

The digest of block i is xxh3-64 of its token bytes, seeded with the digest of block i-1; the seed of block 0 is a
keyed hash of the namespace. So one 64-bit number stands for a namespace and everything up to the end of a block.
Digests only *find*: the tree compares the tokens before it uses a page, so a collision, forged or not, costs sharing
and never an answer.
"""

from array import array
from collections.abc import Callable
from hashlib import blake2b

from xxhash import xxh3_64_intdigest

from radix.errors import CacheError

TOKEN_BYTES = 4

BlockHash = Callable[[bytes, int], int]
"""(block of little-endian uint32 token ids, seed) -> 64-bit digest."""


def xxh3(block: bytes, seed: int) -> int:
    """The block hash in use; tests put weak ones in its place."""
    return xxh3_64_intdigest(block, seed)


def namespace_seed(namespace: str, secret: bytes) -> int:
    """64-bit seed of a namespace: BLAKE2b keyed with ``secret`` (0-64 bytes): nobody outside can compute digests."""
    return int.from_bytes(blake2b(namespace.encode(), digest_size=8, key=secret).digest(), "little")


class Key:
    """What the cache is asked with: the tokens of one sequence, growing at the end, and their block digests.

    namespace  sequences of different namespaces never share a page
    seed       of block 0
    tokens     little-endian uint32 ids; may grow at the end, never change
    digests    of the first ``len(digests)`` full blocks; ``digest_blocks`` brings them up to date
    """

    __slots__ = ("digests", "namespace", "seed", "tokens")

    def __init__(self, tokens: bytes, namespace: str, seed: int) -> None:
        if len(tokens) % TOKEN_BYTES:
            raise CacheError(f"token bytes must be a multiple of {TOKEN_BYTES}, got {len(tokens)}")
        self.namespace = namespace
        self.seed = seed
        self.tokens = bytearray(tokens)
        self.digests: array[int] = array("Q")

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens) // TOKEN_BYTES


def digest_blocks(key: Key, page_size: int, block_hash: BlockHash = xxh3) -> None:
    """Bring ``key.digests`` up to date with all full blocks of ``key.tokens``. O(new tokens), about 0.15 us a block."""
    digests = key.digests
    width = page_size * TOKEN_BYTES
    done = len(digests) * width
    end = len(key.tokens) // width * width
    if done == end:
        return
    digest = digests[-1] if digests else key.seed
    fresh = bytes(key.tokens[done:end])
    append = digests.append
    for at in range(0, end - done, width):
        digest = block_hash(fresh[at : at + width], digest)
        append(digest)
