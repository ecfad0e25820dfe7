"""The eviction policies: what each keeps that another would let go."""

import pytest

from radix.cache import PrefixCache
from radix.policies import DEFAULT, POLICIES
from tests.radix.strategies import pack


def use(cache: PrefixCache, *tokens: int) -> int:
    """One request; the tokens that were found."""
    lease = cache.acquire(cache.key(pack(list(tokens))))
    found = lease.cached
    assert cache.extend(lease, -(-len(tokens) // cache.page_size) - len(lease.pages))
    cache.publish(lease, len(tokens))
    cache.release(lease)
    cache.check()
    return found


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_frees_what_is_asked_for(policy: str) -> None:
    cache = PrefixCache(8, 2, policy=policy)
    for number in range(40):
        use(cache, number % 5, 1, number % 3, 2, number, 3)
    stats = cache.stats()
    assert stats.evicted > 0 and stats.free + stats.cached == 8


def scan(policy: str) -> int:
    """A prompt that is used again and again, while more new text than fits passes by; how often it was found."""
    cache = PrefixCache(8, 1, policy=policy)
    found = 0
    for number in range(600):
        if number % 10 == 0:
            found += use(cache, 1000)
        use(cache, number)
    return found


def test_lru_forgets_what_a_scan_pushes_out_and_frequency_does_not() -> None:
    assert scan("lru") == 0
    assert scan("lfu-ageing") == 0, "it was never hit while it was there"
    hot = PrefixCache(8, 1, policy="lfu-ageing")
    for _ in range(20):
        use(hot, 1000)
    for number in range(12):
        use(hot, number)
    assert use(hot, 1000) == 1


def test_what_comes_back_after_an_eviction_gets_a_second_life() -> None:
    assert scan(DEFAULT) > scan("lru")


def test_without_regret_the_default_is_lru() -> None:
    caches = [PrefixCache(8, 1, policy=policy) for policy in ("lru", DEFAULT)]
    for cache in caches:
        use(cache, 1)
        use(cache, 1)
        for number in range(2, 10):
            use(cache, number)
    assert [cache.peek(cache.key(pack([1]))) for cache in caches] == [0, 0]


def test_dear_blocks_stay_longer_by_cost() -> None:
    cache = PrefixCache(4, 1, policy="cost-ageing")
    use(cache, 1, 2, 3)
    use(cache, 9)
    use(cache, 8)
    assert cache.peek(cache.key(pack([1, 2, 3]))) == 3, "the shallow one went, though it was younger"
