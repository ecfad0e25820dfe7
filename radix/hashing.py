"""Chained, seeded block digests: what finds a block of tokens in the tree. Knows no pages and no nodes.

The digest of block i is xxh3-64 of its packed token ids, seeded with the digest of block i-1; the seed of block 0 is a
keyed hash of the namespace. So one 64-bit number stands for a namespace and everything up to the end of a block.
Digests only *find*: the tree compares the tokens before it uses a page, so a collision, forged or not, costs sharing
and never an answer.

A sequence may begin with a registered, public system prompt. Its blocks are chained from the public seed, the same for
everybody; from the first block that is not wholly public the chain goes on from the tenant's own secret ("the fence"),
so what follows is found by that tenant only::

    public seed -> [ public block ] ... [ public block ] -> fence(tenant's key, last digest) -> [ private block ] ...
                   0                    public_blocks                                           public_blocks + 1
"""

from array import array
from collections.abc import Callable
from hashlib import blake2b
from struct import iter_unpack

from xxhash import xxh3_64_intdigest

from radix.packing import PACKED_BYTES, pack, unpack

BlockHash = Callable[[bytes, int], int]
"""(block of packed token ids, seed) -> 64-bit digest."""

xxh3: BlockHash = xxh3_64_intdigest
"""The block hash in use; tests put weak ones in its place. No function around it: it is called for each block."""

# Blocks that are cut out of a key with one call.
_TOGETHER = 16


def derive_key(secret: bytes, *fields: str) -> bytes:
    """32 bytes for a list of names: BLAKE2b keyed with ``secret`` (0-64 bytes), each name framed with its length."""
    state = blake2b(digest_size=32, key=secret)
    for field in fields:
        name = field.encode()
        state.update(len(name).to_bytes(8, "little") + name)
    return state.digest()


def derive_seed(key: bytes, digest: int | None = None) -> int:
    """64-bit seed of the first block under ``key``; with ``digest``, of the block after the one with that digest."""
    after = b"" if digest is None else digest.to_bytes(8, "little")
    return int.from_bytes(blake2b(after, digest_size=8, key=key).digest(), "little")


class Key:
    """What the cache is asked with: the tokens of one sequence, growing at the end, and their block digests.

    tenant         who pays for its pages
    root           name of the root that its first block hangs on
    private_key    derived from tenant and namespace; seeds the first block that is not public
    public_blocks  leading blocks that are wholly inside of a registered public prompt
    seed           of block 0
    packed         token ids, three bytes each (``radix.packing``); may grow at the end, never change
    digests        of the first ``len(digests)`` full blocks; ``digest_blocks`` brings them up to date
    """

    __slots__ = ("digests", "packed", "private_key", "public_blocks", "root", "seed", "tenant")

    def __init__(
        self, packed: bytearray, tenant: str, root: str, private_key: bytes, seed: int, public_blocks: int
    ) -> None:
        self.tenant = tenant
        self.root = root
        self.private_key = private_key
        self.seed = seed
        self.public_blocks = public_blocks
        self.packed = packed
        self.digests: array[int] = array("Q")

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.packed) // PACKED_BYTES

    def extend(self, tokens: bytes) -> None:
        """The sequence goes on with these uint32 ids. Raises ``CacheError`` as ``pack``."""
        self.packed += pack(tokens)

    def tokens(self, start: int = 0, end: int | None = None) -> bytes:
        """uint32 ids of the tokens ``start``..``end``, None: to the last. O(those)."""
        return unpack(self.packed[start * PACKED_BYTES : None if end is None else end * PACKED_BYTES])

    def owner(self, block: int) -> bytes:
        """Whose a block is: empty for a public one."""
        return b"" if block < self.public_blocks else self.private_key


def digest_blocks(key: Key, page_size: int, block_hash: BlockHash = xxh3) -> None:
    """Bring ``key.digests`` up to date with all full blocks of ``key.packed``. O(new tokens), about 0.15 us a block."""
    digests = key.digests
    blocks = len(key.packed) // (page_size * PACKED_BYTES)
    fence = key.public_blocks
    if len(digests) < fence:
        _extend(key, min(fence, blocks), page_size, digests[-1] if digests else key.seed, block_hash)
    if len(digests) == blocks:
        return
    if not digests:
        previous = key.seed
    elif len(digests) == fence:
        previous = derive_seed(key.private_key, digests[-1])
    else:
        previous = digests[-1]
    _extend(key, blocks, page_size, previous, block_hash)


def _extend(key: Key, blocks: int, page_size: int, digest: int, block_hash: BlockHash) -> None:
    width = page_size * PACKED_BYTES
    done = len(key.digests)
    grouped = done + (blocks - done) // _TOGETHER * _TOGETHER
    for start, end, together in ((done, grouped, _TOGETHER), (grouped, blocks, 1)):
        groups = iter_unpack(f"{width}s" * together, key.packed[start * width : end * width])
        # An array from a list is filled in one go; its extend would append one by one (20 us of 8,192 tokens).
        key.digests += array("Q", [digest := block_hash(block, digest) for group in groups for block in group])


def common_blocks(ours: "array[int]", theirs: "array[int]") -> int:
    """Leading blocks with equal digests; chained digests agree from the start or not at all. O(log blocks)."""
    low, high = 0, min(len(ours), len(theirs))
    while low < high:
        middle = (low + high + 1) // 2
        if ours[middle - 1] == theirs[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
