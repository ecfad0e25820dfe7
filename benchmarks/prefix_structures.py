"""The prefix cache against the structures of two peers (``benchmarks.peers``), on the same prompts in one run.

    python -m benchmarks.prefix_structures [--json FILE]

Prints a table; no pass or fail. Times depend on the machine; the ratios should not, much. Best of several averages,
the structures in turn, garbage collector off. Each structure gets a prompt in the form it works on: bytes (Banyan), an
int32 array (SGLang), a list of ints (vLLM). What is not the same work, and in whose favour:

- ``peek`` answers with a count; the peers' matches with pages. ``acquire`` is match, lock and pages in one;
- a match of SGLang's structure hashes nothing: its prompt needs no hashing before;
- an eviction of SGLang's structure only frees, the other two also hand out the page; it frees whole leaves.
"""

import argparse
import gc
import json
import platform
import random
import sys
import timeit
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from pathlib import Path

import numpy as np

from benchmarks.peers.block_hash_map import Block, BlockHashMap, HashFunction, sha256_digest, xxh3_digest
from benchmarks.peers.token_radix import Ids, TokenNode, TokenRadixCache
from radix.cache import PrefixCache

PAGE_SIZE = 16
PROMPT_TOKENS = 8192
EDGES = 32
VOCABULARY = 150_000
LEAVES = (1_000, 40_000, 100_000)
MEMORY_BLOCKS = 200_000
SYSTEM_PROMPTS, SYSTEM_BLOCKS, CONVERSATION_BLOCKS = 64, 128, 40

Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table; None: the structure has no such operation."""

    name: str
    unit: str
    banyan: float
    sglang: float | None
    vllm: float | None


def time_row(
    name: str, banyan: Call, sglang: Call | None, vllm: Call | None, rounds: int = 15, number: int = 20
) -> Row:
    """Microseconds of one call of each: the fastest of ``rounds`` averages over ``number`` calls, taken in turn."""
    timers = [timeit.Timer(call) for call in (banyan, sglang, vllm) if call is not None]
    best = [inf] * len(timers)
    for _ in range(rounds):
        best = [min(so_far, timer.timeit(number)) for so_far, timer in zip(best, timers, strict=True)]
    microseconds = iter([spent / number * 1e6 for spent in best])
    return Row(
        name,
        "us",
        next(microseconds),
        next(microseconds) if sglang is not None else None,
        next(microseconds) if vllm is not None else None,
    )


class Caches:
    """The three structures with the same sequences in them."""

    def __init__(self, pages: int) -> None:
        self.banyan = PrefixCache(pages, PAGE_SIZE)
        self.sglang = TokenRadixCache(PAGE_SIZE)
        self.vllm = BlockHashMap(pages, PAGE_SIZE)

    def put(self, ids: Ids) -> None:
        """Cache a sequence of whole pages in each, and let it go."""
        put_banyan(self.banyan, ids)
        put_sglang(self.sglang, ids)
        put_vllm(self.vllm, ids, xxh3_digest)


def token_ids(source: np.random.Generator, tokens: int) -> Ids:
    """Random ids of a vocabulary, int32."""
    return source.integers(0, VOCABULARY, tokens, dtype=np.int32)


def token_bytes(ids: Ids) -> bytes:
    """As Banyan has them."""
    return ids.astype("<u4").tobytes()


def put_banyan(cache: PrefixCache, ids: Ids) -> None:
    """Cache a sequence and let it go."""
    lease = cache.acquire(cache.key(token_bytes(ids)))
    if not cache.extend(lease, len(ids) // PAGE_SIZE - len(lease.pages)):
        raise RuntimeError("the benchmark's pool is too small")
    cache.publish(lease, len(ids))
    cache.release(lease)


def put_sglang(cache: TokenRadixCache, ids: Ids) -> None:
    """Cache a sequence; the page ids do not matter to the structure."""
    cache.insert(ids, np.zeros(len(ids) // PAGE_SIZE * cache.indices_per_page, ids.dtype))


def put_vllm(cache: BlockHashMap, ids: Ids, hash_function: HashFunction) -> None:
    """Cache a sequence and let it go."""
    cache.free(cache.insert(cache.hash_prompt(ids.tolist(), hash_function)))


def hash_rows(prompt: Ids) -> list[Row]:
    """What has to be hashed before a match."""
    cache, blocks = PrefixCache(1, PAGE_SIZE), BlockHashMap(1, PAGE_SIZE)
    tokens, ids = token_bytes(prompt), prompt.tolist()
    return [
        time_row(
            f"hash {PROMPT_TOKENS:,} tokens (vLLM: {name})",
            partial(cache.key, tokens),
            None,
            partial(blocks.hash_prompt, ids, function),
        )
        for name, function in (("sha256", sha256_digest), ("xxh3", xxh3_digest))
    ]


def match_rows(shape: str, caches: Caches, prompt: Ids) -> list[Row]:
    """Match, match + lock + unlock, lock + unlock of a prompt that is cached whole; digests given."""
    banyan, sglang, vllm = caches.banyan, caches.sglang, caches.vllm
    key = banyan.key(token_bytes(prompt))
    hashes = vllm.hash_prompt(prompt.tolist(), xxh3_digest)
    (pages, node), blocks = sglang.match(prompt), vllm.match(hashes)
    assert banyan.peek(key) == PROMPT_TOKENS
    assert len(pages) == len(blocks) == PROMPT_TOKENS // PAGE_SIZE

    def hold_banyan() -> None:
        banyan.release(banyan.acquire(key))

    def lock_sglang(end: TokenNode) -> None:
        sglang.lock(end)
        sglang.unlock(end)

    def touch_vllm(found: list[Block]) -> None:
        vllm.touch(found)
        vllm.free(found)

    return [
        time_row(
            f"match, {shape}",
            lambda: banyan.peek(key),
            lambda: sglang.match(prompt),
            lambda: vllm.match(hashes),
        ),
        time_row(
            f"match + lock + unlock, {shape}",
            hold_banyan,
            lambda: lock_sglang(sglang.match(prompt)[1]),
            lambda: touch_vllm(vllm.match(hashes)),
        ),
        time_row(
            f"lock + unlock, {shape} (Banyan: match included)",
            hold_banyan,
            lambda: lock_sglang(node),
            lambda: touch_vllm(blocks),
        ),
    ]


def shapes(source: np.random.Generator, prompt: Ids) -> Iterator[tuple[str, Caches]]:
    """The same prompt, cached in one go, turn by turn, and with another conversation forking off every turn."""
    pages = PROMPT_TOKENS // PAGE_SIZE
    turn = PROMPT_TOKENS // EDGES

    caches = Caches(pages)
    caches.put(prompt)
    yield "one edge", caches

    caches = Caches(pages)
    for end in range(turn, PROMPT_TOKENS + 1, turn):
        caches.put(prompt[:end])
    yield f"{EDGES} turns", caches

    caches = Caches(pages + EDGES)
    for end in range(turn, PROMPT_TOKENS + 1, turn):
        caches.put(prompt[:end])
        caches.put(np.concatenate((prompt[:end], token_ids(source, PAGE_SIZE))))
    yield f"{EDGES} edges", caches

    lease = caches.banyan.acquire(caches.banyan.key(token_bytes(prompt)))
    _, node = caches.sglang.match(prompt)
    caches.sglang.lock(node)
    caches.vllm.touch(caches.vllm.match(caches.vllm.hash_prompt(prompt.tolist(), xxh3_digest)))
    yield f"{EDGES} edges in use", caches
    caches.banyan.release(lease)


def evict_rows(source: np.random.Generator, leaves: int, batch: int = 100) -> list[Row]:
    """One page, then ``batch`` pages in one call; the pool is full and every sequence has one page of its own."""
    caches = Caches(leaves)
    for ids in token_ids(source, leaves * PAGE_SIZE).reshape(leaves, PAGE_SIZE):
        caches.put(ids)
    lease = caches.banyan.acquire(caches.banyan.key(b""))
    return [
        time_row(
            f"evict {pages} page{'s' if pages > 1 else ''}, {leaves:,} leaves",
            partial(caches.banyan.extend, lease, pages),
            partial(caches.sglang.evict, pages),
            partial(caches.vllm.evict, pages),
            rounds=rounds,
            number=number,
        )
        for pages, rounds, number in ((1, 5, 20), (batch, 3, 1))
    ]


def conversations(source: np.random.Generator) -> Iterator[Ids]:
    """``MEMORY_BLOCKS`` different blocks: conversations of about 40 blocks, each under one of 64 system prompts."""
    systems = [token_ids(source, SYSTEM_BLOCKS * PAGE_SIZE) for _ in range(SYSTEM_PROMPTS)]
    lengths = random.Random(0)
    left = MEMORY_BLOCKS - SYSTEM_PROMPTS * SYSTEM_BLOCKS
    number = 0
    while left:
        blocks = min(left, lengths.randint(CONVERSATION_BLOCKS // 2, CONVERSATION_BLOCKS * 3 // 2))
        left -= blocks
        yield np.concatenate((systems[number % SYSTEM_PROMPTS], token_ids(source, blocks * PAGE_SIZE)))
        number += 1


def bytes_per_block(build: Callable[[Iterator[Ids]], object]) -> float:
    """Memory that Python and numpy hold after ``build`` has cached the conversations, pools included, for a block."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = build(conversations(np.random.default_rng(1)))
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return (after - before) / MEMORY_BLOCKS


def memory_rows() -> list[Row]:
    """Bytes for a cached block, with page ids and with what the peers' sources keep."""

    def banyan(sequences: Iterator[Ids]) -> object:
        cache = PrefixCache(MEMORY_BLOCKS, PAGE_SIZE)
        for ids in sequences:
            put_banyan(cache, ids)
        assert cache.stats().cached == MEMORY_BLOCKS
        return cache

    def sglang(indices_per_page: int, dtype: type[np.signedinteger]) -> Callable[[Iterator[Ids]], object]:
        def build(sequences: Iterator[Ids]) -> object:
            cache = TokenRadixCache(PAGE_SIZE, indices_per_page)
            for ids in sequences:
                put_sglang(cache, ids.astype(dtype))
            assert cache.evictable == MEMORY_BLOCKS
            return cache

        return build

    def vllm(hash_function: HashFunction) -> Callable[[Iterator[Ids]], object]:
        def build(sequences: Iterator[Ids]) -> object:
            cache = BlockHashMap(MEMORY_BLOCKS, PAGE_SIZE)
            for ids in sequences:
                put_vllm(cache, ids, hash_function)
            assert len(cache.cached) == MEMORY_BLOCKS
            return cache

        return build

    ours, sha, xxh3 = bytes_per_block(banyan), bytes_per_block(vllm(sha256_digest)), bytes_per_block(vllm(xxh3_digest))
    return [
        Row(name, "bytes", ours, bytes_per_block(build), theirs)
        for name, build, theirs in (
            ("memory a block (an index a page; vLLM: xxh3)", sglang(1, np.int32), xxh3),
            ("memory a block (mini-sglang: an index a token; vLLM: sha256)", sglang(PAGE_SIZE, np.int32), sha),
            ("memory a block (SGLang: 64-bit, an index a token; vLLM: sha256)", sglang(PAGE_SIZE, np.int64), sha),
        )
    ]


def measure() -> Iterator[Row]:
    """All rows, as they come."""
    source = np.random.default_rng(0)
    prompt = token_ids(source, PROMPT_TOKENS)
    yield from hash_rows(prompt)
    for shape, caches in shapes(source, prompt):
        yield from match_rows(shape, caches, prompt)
    for leaves in LEAVES:
        yield from evict_rows(source, leaves)
    yield from memory_rows()


def line(row: Row) -> str:
    """One line of the table."""
    cells = [f"{row.banyan:,.1f}"]
    cells += ["-" if value is None else f"{value:,.1f}" for value in (row.sglang, row.vllm)]
    cells += ["-" if value is None else f"{value / row.banyan:,.2f}" for value in (row.sglang, row.vllm)]
    return f"{row.name:66} {row.unit:5} " + " ".join(f"{cell:>12}" for cell in cells)


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description="Compare the prefix cache with the structures of two peers.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    arguments = parser.parse_args()
    heads = ("Banyan", "SGLang's", "vLLM's", "SGLang/ours", "vLLM/ours")
    print(f"{'':66} {'unit':5} " + " ".join(f"{head:>12}" for head in heads))
    rows = []
    for row in measure():
        rows.append(row)
        print(line(row), flush=True)
    if arguments.json is not None:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "system": sys.platform}
        report = {**machine, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
