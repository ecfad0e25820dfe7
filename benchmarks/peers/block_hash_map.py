"""BlockHashMap: the prefix cache of vLLM, one object and one dict entry for every block, no tree.

Described by: vLLM, vllm/v1/core/kv_cache_utils.py (commit 001cabc: ``hash_block_tokens``, ``KVCacheBlock``,
``FreeKVCacheBlockQueue``), block_pool.py (commit c59cb79), kv_cache_manager.py (commit 003df29), and
vllm/utils/hashing.py (v0.17, as quoted by others: a digest of a pickle). Where it costs time and is not the
algorithm, it is left out, in the peer's favour:

- extra keys (LoRA, images, salts) are always None, and no code looks for them;
- one group of layers, so that the dict's key is the block's hash, not hash + group id made anew for every probe;
- one block for a hash: vLLM keeps duplicates, in a dict where there are several;
- the null block, metrics, events; the last block of a full hit is matched too, vLLM always computes it again.
"""

import pickle
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from itertools import islice, pairwise

from xxhash import xxh3_128_digest

HashFunction = Callable[[bytes], bytes]
FIRST_PARENT = bytes(32)
"""Stands for the parent of block 0; random in vLLM."""


def sha256_digest(message: bytes) -> bytes:
    """vLLM's default."""
    return sha256(message).digest()


def xxh3_digest(message: bytes) -> bytes:
    """vLLM's faster choice, 128 bits."""
    return xxh3_128_digest(message)


class Block:
    """One page. ``hash``: what it caches; ``before`` and ``after``: its neighbours while it is in the free list."""

    __slots__ = ("after", "before", "hash", "page", "references")

    def __init__(self, page: int) -> None:
        self.page = page
        self.references = 0
        self.hash: bytes | None = None
        self.before: Block | None = None
        self.after: Block | None = None


class BlockHashMap:
    """Pages 0..blocks-1. A block that nobody refers to is in the free list, cached or not; its head goes first."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.free_blocks = blocks
        self.cached: dict[bytes, Block] = {}
        self.blocks = [Block(page) for page in range(blocks)]
        self._head, self._tail = Block(-1), Block(-1)  # sentinels: every free block has two neighbours
        for before, after in pairwise((self._head, *self.blocks, self._tail)):
            before.after, after.before = after, before

    def hash_prompt(self, ids: list[int], hash_function: HashFunction) -> list[bytes]:
        """Chained hashes of all full blocks: of the pickle of (parent's hash, ids, extra keys). O(tokens)."""
        tokens, size = tuple(ids), self.block_size
        dumps, protocol = pickle.dumps, pickle.HIGHEST_PROTOCOL
        parent = FIRST_PARENT
        hashes: list[bytes] = []
        for at in range(0, len(tokens) - size + 1, size):
            parent = hash_function(dumps((parent, tokens[at : at + size], None), protocol))
            hashes.append(parent)
        return hashes

    def match(self, hashes: list[bytes]) -> list[Block]:
        """Blocks of the longest cached prefix; changes nothing. One probe of the dict a block."""
        cached = self.cached
        found: list[Block] = []
        with suppress(KeyError):
            for block_hash in hashes:
                found.append(cached[block_hash])  # noqa: PERF401 (what was found before a miss stays)
        return found

    def touch(self, blocks: list[Block]) -> None:
        """Refer to each block once more; it leaves the free list if it was there. O(blocks)."""
        for block in blocks:
            if block.references == 0:
                before, after = block.before, block.after
                assert before is not None and after is not None
                before.after, after.before = after, before
                block.before = block.after = None
                self.free_blocks -= 1
            block.references += 1

    def free(self, blocks: list[Block]) -> None:
        """Refer to each block once less; what nobody refers to goes to the end of the free list, last one first.

        O(blocks).
        """
        last = self._tail.before
        assert last is not None
        for block in reversed(blocks):
            block.references -= 1
            if block.references == 0:
                last.after, block.before = block, last
                last = block
                self.free_blocks += 1
        last.after, self._tail.before = self._tail, last

    def insert(self, hashes: list[bytes]) -> list[Block]:
        """Blocks for a whole sequence, referred to: those that are cached, and new ones for the rest. O(blocks).

        The end of a path is always evicted before its start, so what follows a miss is not cached either. The caller
        has made sure that there are enough free ones.
        """
        found = self.match(hashes)
        self.touch(found)
        for block_hash, block in zip(
            islice(hashes, len(found), None), self.evict(len(hashes) - len(found)), strict=True
        ):
            block.hash = block_hash
            self.cached[block_hash] = block
            found.append(block)
        return found

    def evict(self, blocks: int = 1) -> list[Block]:
        """Take blocks from the head of the free list, referred to once; what they cached is forgotten. O(blocks)."""
        if blocks > self.free_blocks:
            raise ValueError(f"{blocks} blocks wanted of {self.free_blocks} free ones")
        self.free_blocks -= blocks
        taken: list[Block] = []
        block = self._head.after
        for _ in range(blocks):
            assert block is not None
            following = block.after
            block.before = block.after = None
            if block.hash is not None:
                del self.cached[block.hash]
                block.hash = None
            block.references = 1
            taken.append(block)
            block = following
        assert block is not None
        self._head.after, block.before = block, self._head
        return taken
