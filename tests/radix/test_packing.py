"""Token ids in three bytes: the same ids come back, and one that does not fit is refused before anything is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radix.cache import PrefixCache
from radix.errors import CacheError
from radix.packing import LARGEST_ID, pack, unpack
from radix.unshared import UnsharedCache
from tests.radix.strategies import pack as uint32

IDS = st.lists(st.one_of(st.integers(0, LARGEST_ID), st.sampled_from([0, 255, 256, 65_535, 65_536, LARGEST_ID])))


@given(IDS)
def test_the_same_ids_come_back(ids: list[int]) -> None:
    packed = pack(uint32(ids))
    assert len(packed) == 3 * len(ids)
    assert unpack(packed) == uint32(ids)


@given(IDS, st.integers(LARGEST_ID + 1, 2**32 - 1), IDS)
def test_an_id_that_does_not_fit_is_named(before: list[int], large: int, after: list[int]) -> None:
    with pytest.raises(CacheError, match=f"token id {large} is above {LARGEST_ID}"):
        pack(uint32([*before, large, *after]))


@pytest.mark.parametrize("cache", [PrefixCache(4, 2), UnsharedCache(4, 2)])
def test_the_cache_takes_no_such_id_in(cache: PrefixCache) -> None:
    for tokens in (uint32([1, 2**24]), uint32([1])[:3]):
        with pytest.raises(CacheError, match=r"above 16777215|multiple of 4"):
            cache.key(tokens)
        with pytest.raises(CacheError):
            cache.register(uint32([1, 1]) + tokens)
    key = cache.key(uint32([1]))
    with pytest.raises(CacheError):
        key.extend(uint32([2**24]))
    assert len(key) == 1 and key.tokens() == uint32([1])
    cache.check()


def test_ids_that_differ_in_their_highest_byte_only_are_different() -> None:
    """With a hash that sees no difference the tokens decide."""
    cache = PrefixCache(8, 2, block_hash=lambda block, seed: 7)
    lease = cache.acquire(cache.key(uint32([5, 6])))
    cache.extend(lease, 1)
    cache.publish(lease, 2)
    assert cache.peek(cache.key(uint32([5, 6]))) == 2
    assert cache.peek(cache.key(uint32([5, 6 + (1 << 16)]))) == 0
    cache.release(lease)


def test_a_key_gives_parts_of_itself() -> None:
    key = PrefixCache(4, 2).key(uint32([7, 8, 70_000, LARGEST_ID]))
    assert key.tokens(1, 3) == uint32([8, 70_000])
    assert key.tokens(2) == uint32([70_000, LARGEST_ID])
    assert key.tokens(4) == b""


def test_a_part_of_an_edge_is_compared_whole() -> None:
    """With a hash that sees no difference, a sequence that goes along an edge's first blocks only, and one that differs
    in the second of them."""
    cache = PrefixCache(8, 2, block_hash=lambda block, seed: 7)
    lease = cache.acquire(cache.key(uint32([1, 2, 3, 4, 5, 6])))
    cache.extend(lease, 3)
    cache.publish(lease, 6)
    cache.release(lease)
    assert cache.peek(cache.key(uint32([1, 2, 3, 4]))) == 4
    assert cache.peek(cache.key(uint32([1, 2, 3, 9]))) == 0
    assert cache.peek(cache.key(uint32([1, 2, 3, 4, 5, 9]))) == 0
