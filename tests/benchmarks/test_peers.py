"""The rebuilt structures find what a brute-force search finds, and evict what they say and never what is in use."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.peers.block_hash_map import Block, BlockHashMap, HashFunction, sha256_digest, xxh3_digest
from benchmarks.peers.token_radix import TokenNode, TokenRadixCache, common_prefix

PAGE = 4
SEEDS = range(20)


def sequences(source: random.Random, count: int) -> Iterator[list[int]]:
    """Sequences of two token ids that share a lot: most go on from a cut of an earlier one."""
    made: list[list[int]] = [[]]
    for _ in range(count):
        base = source.choice(made)
        tokens = base[: source.randint(0, len(base))] + source.choices((7, 8), k=source.randint(0, 12))
        made.append(tokens)
        yield tokens


def pages_of(tokens: list[int]) -> list[tuple[int, ...]]:
    """Every whole page by all tokens up to its end: what a page's content depends on."""
    return [tuple(tokens[:end]) for end in range(PAGE, len(tokens) + 1, PAGE)]


def longest_prefix(cached: dict[tuple[int, ...], int], tokens: list[int]) -> list[int]:
    """The oracle: page ids as long as there is one."""
    found = []
    for content in pages_of(tokens):
        if content not in cached:
            break
        found.append(cached[content])
    return found


class RadixWorld:
    """A TokenRadixCache and, next to it, which page holds what and which paths are in use."""

    def __init__(self, indices_per_page: int) -> None:
        self.cache = TokenRadixCache(PAGE, indices_per_page)
        self.indices_per_page = indices_per_page
        self.cached: dict[tuple[int, ...], int] = {}
        self.locked: list[tuple[TokenNode, list[int]]] = []
        self.next_page = 0

    def match(self, tokens: list[int]) -> TokenNode:
        indices, node = self.cache.match(np.array(tokens, np.int32))
        expected = longest_prefix(self.cached, tokens)
        assert indices.tolist() == [page for page in expected for _ in range(self.indices_per_page)]
        return node

    def insert(self, tokens: list[int]) -> None:
        contents = pages_of(tokens)
        fresh = range(self.next_page, self.next_page + len(contents))
        self.next_page += len(contents)
        had = len(longest_prefix(self.cached, tokens))
        assert self.cache.insert(np.array(tokens, np.int32), np.repeat(fresh, self.indices_per_page))[0] == had
        self.cached.update(list(zip(contents, fresh, strict=True))[had:])
        self.match(tokens)

    def lock(self, tokens: list[int]) -> None:
        node = self.match(tokens)
        self.cache.lock(node)
        self.locked.append((node, longest_prefix(self.cached, tokens)))

    def unlock(self) -> None:
        if self.locked:
            self.cache.unlock(self.locked.pop()[0])

    def evict(self, pages: int) -> None:
        before = self.cache.evictable
        freed = set(self.cache.evict(pages).tolist())
        assert freed <= set(self.cached.values())
        assert freed.isdisjoint(page for _, path in self.locked for page in path)
        assert before - self.cache.evictable == len(freed) >= min(pages, before)
        self.cached = {content: page for content, page in self.cached.items() if page not in freed}

    def check(self) -> None:
        """The count of evictable pages is exact, and so is the set of leaves."""
        in_use = {page for _, path in self.locked for page in path}
        assert self.cache.evictable == len(self.cached) - len(in_use)
        nodes = [self.cache.root]
        for node in nodes:
            nodes += node.children.values()
        assert self.cache.leaves == {node for node in nodes[1:] if not node.children and not node.locks}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("indices_per_page", [1, PAGE])
def test_radix_against_brute_force(seed: int, indices_per_page: int) -> None:
    source = random.Random(seed)
    world = RadixWorld(indices_per_page)
    for tokens in sequences(source, 150):
        match source.randrange(8):
            case 0 | 1 | 2:
                world.insert(tokens)
            case 3:
                world.lock(tokens)
            case 4:
                world.unlock()
            case 5:
                world.evict(source.randint(1, 6))
            case _:
                world.match(tokens)
        world.check()
    while world.locked:
        world.unlock()
    world.evict(world.cache.evictable)
    world.check()
    assert not world.cached and not world.cache.root.children


def test_radix_evicts_who_was_used_longest_ago() -> None:
    world = RadixWorld(1)
    for first in (1, 2, 3):
        world.insert([first] * PAGE)
    world.match([1] * PAGE)
    assert [world.cache.evict(1).tolist() for _ in range(4)] == [[1], [2], [0], []]


def test_common_prefix() -> None:
    ids = np.arange(8, dtype=np.int32)
    assert common_prefix(ids, ids[:5]) == 5
    assert common_prefix(ids, np.array([0, 1, 9, 3], np.int32)) == 2
    assert common_prefix(ids, ids[1:]) == 0


class MapWorld:
    """A BlockHashMap and, next to it, what each block holds."""

    def __init__(self, blocks: int, hash_function: HashFunction) -> None:
        self.map = BlockHashMap(blocks, PAGE)
        self.total = blocks
        self.hash_function = hash_function
        self.used: list[list[Block]] = []

    def hashes(self, tokens: list[int]) -> list[bytes]:
        return self.map.hash_prompt(tokens, self.hash_function)

    def references(self) -> dict[int, int]:
        counts = dict.fromkeys(range(self.total), 0)
        for blocks in self.used:
            for block in blocks:
                counts[block.page] += 1
        return counts

    def check(self) -> None:
        """References are those of the paths in use; the free list is everybody else, and its length is right."""
        counts = self.references()
        assert {block.page: block.references for block in self.map.blocks} == counts
        free, block = [], self.map._head.after
        while block is not None and block is not self.map._tail:
            assert block.after is not None and block.after.before is block
            free.append(block.page)
            block = block.after
        assert sorted(free) == [page for page, count in counts.items() if count == 0]
        assert len(free) == self.map.free_blocks
        assert all(block.hash == block_hash for block_hash, block in self.map.cached.items())


@pytest.mark.parametrize("hash_function", [sha256_digest, xxh3_digest])
@pytest.mark.parametrize("seed", SEEDS)
def test_map_against_brute_force(seed: int, hash_function: HashFunction) -> None:
    source = random.Random(seed)
    world = MapWorld(40, hash_function)
    held: dict[tuple[int, ...], int] = {}
    for tokens in sequences(source, 200):
        hashes = world.hashes(tokens)
        assert len(hashes) == len(tokens) // PAGE
        found = world.map.match(hashes)
        assert [block.page for block in found] == longest_prefix(held, tokens)
        action = source.randrange(4)
        if action == 0:
            world.map.touch(found)
            world.used.append(found)
        elif action == 1 and world.used:
            world.map.free(world.used.pop(source.randrange(len(world.used))))
        elif action == 2 and len(hashes) <= world.map.free_blocks:
            blocks = world.map.insert(hashes)
            world.used.append(blocks)
            taken = {block.page for block in blocks[len(found) :]}
            held = {content: page for content, page in held.items() if page not in taken}
            held.update(zip(pages_of(tokens), (block.page for block in blocks), strict=True))
        elif action == 3 and world.map.free_blocks:
            in_use = {page for page, count in world.references().items() if count}
            taken_blocks = world.map.evict()
            assert len(taken_blocks) == 1 and taken_blocks[0].page not in in_use
            held = {content: page for content, page in held.items() if page != taken_blocks[0].page}
            world.used.append(taken_blocks)
        world.check()
        assert len(world.map.cached) == len(held)


def test_map_evicts_the_end_of_the_oldest_path_first() -> None:
    world = MapWorld(3, sha256_digest)
    old, new = world.hashes([1] * 2 * PAGE), world.hashes([2] * PAGE)
    world.map.free(world.map.insert(old))
    world.map.free(world.map.insert(new))
    world.map.evict()
    assert [len(world.map.match(hashes)) for hashes in (old, new)] == [1, 1]
    world.map.evict()
    assert [len(world.map.match(hashes)) for hashes in (old, new)] == [0, 1]


def test_map_refuses_more_than_is_free() -> None:
    world = MapWorld(2, sha256_digest)
    with pytest.raises(ValueError, match="3 blocks wanted of 2"):
        world.map.evict(3)
    world.check()
