"""What the cache promises, one promise a test."""

import pytest

from radix import packing
from radix.cache import PrefixCache
from radix.errors import CacheError, InvariantError, LeaseError
from radix.hashing import Key, derive_key, derive_seed, digest_blocks
from radix.lease import Lease
from radix.pool import PagePool
from tests.radix.strategies import pack


def fill(cache: PrefixCache, tokens: list[int], namespace: str = "") -> Lease:
    """Acquire, extend and publish everything."""
    lease = cache.acquire(cache.key(pack(tokens), namespace))
    assert cache.extend(lease, -(-len(tokens) // cache.page_size) - len(lease.pages))
    cache.publish(lease, len(tokens))
    cache.check()
    return lease


def put(cache: PrefixCache, tokens: list[int], namespace: str = "") -> list[int]:
    """Cache a sequence and let it go; its pages."""
    lease = fill(cache, tokens, namespace)
    cache.release(lease)
    cache.check()
    return lease.pages


def cached(cache: PrefixCache, tokens: list[int], namespace: str = "") -> int:
    return cache.peek(cache.key(pack(tokens), namespace))


def test_a_prefix_is_found_in_full_pages() -> None:
    cache = PrefixCache(16, 4)
    pages = put(cache, list(range(8)))
    lease = cache.acquire(cache.key(pack([0, 1, 2, 3, 4, 5, 6, 9])))
    assert (lease.cached, lease.pages) == (4, pages[:1])
    assert cached(cache, list(range(20))) == 8
    assert cached(cache, [1, 2, 3, 4]) == 0


def test_what_runs_is_shared_before_it_ends() -> None:
    cache = PrefixCache(16, 4)
    lease = cache.acquire(cache.key(pack(list(range(12)))))
    cache.extend(lease, 3)
    cache.publish(lease, 6)
    assert cached(cache, list(range(12))) == 4
    cache.publish(lease, 12)
    assert cached(cache, list(range(12))) == 12
    assert cache.stats().evictable == 0


def test_generated_tokens_are_published_page_by_page_on_one_edge() -> None:
    cache = PrefixCache(16, 2)
    lease = cache.acquire(cache.key(pack([1])))
    for token in range(2, 12):
        if len(lease.pages) * 2 < len(lease.key):
            cache.extend(lease, 1)
        cache.publish(lease, len(lease.key))
        lease.key.extend(pack([token]))
        cache.check()
    assert cached(cache, list(range(1, 20))) == 10
    assert cache.stats().nodes == 1


def test_a_partial_page_goes_to_the_one_who_continues_and_to_nobody_else() -> None:
    cache = PrefixCache(16, 4)
    pages = put(cache, [1, 2, 3, 4, 5, 6])
    first = cache.acquire(cache.key(pack([1, 2, 3, 4, 5, 6, 7, 8])))
    second = cache.acquire(cache.key(pack([1, 2, 3, 4, 5, 6, 7, 8])))
    assert (first.cached, first.pages) == (6, pages)
    assert (second.cached, second.pages) == (4, pages[:1])
    cache.check()
    cache.publish(first, 8)
    cache.extend(second, 1)
    cache.publish(second, 8)
    cache.check()
    assert second.duplicates == list(second.pages[1:])


def test_a_tail_is_not_taken_by_another_text() -> None:
    cache = PrefixCache(16, 4)
    put(cache, [1, 2, 3, 4, 5, 6])
    assert cached(cache, [1, 2, 3, 4, 5, 7, 8]) == 4
    assert cached(cache, [1, 2, 3, 4, 5]) == 4
    assert cached(cache, [1, 2, 3, 4, 5, 6]) == 6


def test_a_tail_without_a_full_page_is_kept_too() -> None:
    cache = PrefixCache(4, 16)
    put(cache, [1, 2, 3])
    assert cached(cache, [1, 2, 3, 4]) == 3
    assert cached(cache, [1, 2, 3, 4], "other") == 0


def test_a_failed_request_keeps_no_tail() -> None:
    cache = PrefixCache(4, 4)
    cache.release(fill(cache, [1, 2, 3, 4, 5]), keep_tail=False)
    assert cached(cache, [1, 2, 3, 4, 5, 6]) == 4


def test_namespaces_share_nothing() -> None:
    cache = PrefixCache(16, 2)
    put(cache, [1, 2, 3, 4], "a")
    assert cached(cache, [1, 2, 3, 4], "b") == 0
    weak = PrefixCache(16, 2, block_hash=lambda block, seed: 5)
    put(weak, [1, 2], "a")
    assert cached(weak, [1, 2], "b") == 0, "equal digests in two namespaces"
    put(weak, [1, 2], "b")


def test_wrong_tokens_never_match_whatever_their_digests() -> None:
    cache = PrefixCache(16, 2, block_hash=lambda block, seed: 5)
    put(cache, [1, 2])
    assert cached(cache, [3, 4]) == 0
    lease = fill(cache, [3, 4])
    assert lease.published == 0, "the digest is taken: the page stays private"
    cache.release(lease)
    cache.check()
    assert cached(cache, [1, 2]) == 2


def test_a_duplicate_is_kept_until_release() -> None:
    cache = PrefixCache(8, 2)
    first, second = (cache.acquire(cache.key(pack([1, 2, 3]))) for _ in range(2))
    for lease in (first, second):
        cache.extend(lease, 2)
    cache.publish(first, 2)
    table = list(second.pages)
    cache.publish(second, 2)
    assert list(second.pages) == table and second.duplicates == table[:1]
    cache.check()
    cache.release(second)
    cache.check()
    assert cache.stats().private == 1, "the empty second page of the first"


def test_eviction_cuts_exactly_what_is_needed_off_the_oldest_tail() -> None:
    cache = PrefixCache(8, 2)
    put(cache, [1, 2, 3, 4, 5, 6, 7, 8])
    put(cache, [9, 9, 8, 8])
    lease = cache.acquire(cache.key(pack([5] * 6)))
    assert cache.extend(lease, 3)
    assert cache.stats().evicted == 1
    assert cached(cache, [1, 2, 3, 4, 5, 6, 7, 8]) == 6
    assert cached(cache, [9, 9, 8, 8]) == 4
    cache.check()


def test_eviction_takes_the_least_recently_used_leaf() -> None:
    cache = PrefixCache(4, 2)
    put(cache, [1, 1])
    put(cache, [2, 2])
    cache.release(cache.acquire(cache.key(pack([1, 1]))))
    lease = cache.acquire(cache.key(pack([3, 3])))
    assert cache.extend(lease, 3)
    assert (cached(cache, [1, 1]), cached(cache, [2, 2])) == (2, 0)


def test_what_is_held_is_not_evicted() -> None:
    cache = PrefixCache(4, 2)
    held = fill(cache, [1, 2, 3, 4])
    lease = cache.acquire(cache.key(pack([7, 7, 7, 7, 7, 7])))
    assert not cache.extend(lease, 3)
    assert not lease.pages
    assert cache.extend(lease, 2)
    cache.release(held)
    assert cache.extend(lease, 2)
    cache.check()


def test_wrong_use_is_named() -> None:
    cache = PrefixCache(4, 2)
    lease = fill(cache, [1, 2, 3])
    with pytest.raises(LeaseError, match="4 tokens: before"):
        cache.publish(lease, 4)
    with pytest.raises(LeaseError, match="before there were 3"):
        cache.publish(lease, 2)
    cache.release(lease)
    for use in (lambda: cache.release(lease), lambda: cache.extend(lease, 1), lambda: cache.publish(lease, 3)):
        with pytest.raises(LeaseError, match="released"):
            use()
    with pytest.raises(CacheError, match="page_size"):
        PrefixCache(4, 0)
    with pytest.raises(CacheError, match="at least 1 page"):
        PrefixCache(0, 4)
    with pytest.raises(CacheError, match="multiple of 4"):
        cache.key(b"abc")


def test_pool_names_a_page_that_is_freed_twice() -> None:
    pool = PagePool(3)
    pages = pool.take(2)
    pool.give(pages)
    with pytest.raises(InvariantError, match=f"page {pages[0]} is freed twice"):
        pool.give(pages[:1])
    with pytest.raises(InvariantError, match="4 pages wanted"):
        pool.take(4)


def test_digests_are_chained_seeded_and_keyed() -> None:
    def key(tokens: list[int], seed: int, private_key: bytes = b"", public_blocks: int = 0) -> Key:
        made = Key(packing.pack(pack(tokens)), "", "", private_key, seed, public_blocks)
        digest_blocks(made, 2)
        return made

    def digests(tokens: list[int], seed: int) -> list[int]:
        return list(key(tokens, seed).digests)

    assert digests([1, 2, 3, 4, 5], 1)[0] == digests([1, 2, 9, 9], 1)[0]
    assert digests([1, 2, 3, 4], 1)[1] != digests([9, 9, 3, 4], 1)[1]
    assert digests([1, 2], 1) != digests([1, 2], 2)
    assert len(digests([1, 2, 3], 1)) == 1
    grown = key([1, 2, 3], 1)
    grown.extend(pack([4, 5, 6]))
    digest_blocks(grown, 2)
    assert list(grown.digests) == digests([1, 2, 3, 4, 5, 6], 1)

    ours, theirs = (list(key([1, 2, 3, 4], 1, name, 1).digests) for name in (b"ours", b"theirs"))
    assert ours[0] == theirs[0] == digests([1, 2], 1)[0], "public blocks are everybody's"
    assert len({ours[1], theirs[1], digests([1, 2, 3, 4], 1)[1]}) == 3, "what follows is each tenant's own"
    late = key([1, 2], 1, b"ours", 1)
    late.extend(pack([3, 4]))
    digest_blocks(late, 2)
    assert list(late.digests) == ours


def test_names_are_framed_and_keyed() -> None:
    keys = [
        derive_key(b"x", "a", "b"),
        derive_key(b"x", "ab", ""),
        derive_key(b"x", "", "ab"),
        derive_key(b"y", "a", "b"),
    ]
    assert len(set(keys)) == 4
    assert len({derive_seed(key) for key in keys} | {derive_seed(keys[0], digest) for digest in (1, 2)}) == 6
