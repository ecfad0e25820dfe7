"""Pins: what stays, what it may cost, and what becomes of it under pressure."""

import pytest

from radix.accounts import Quota
from radix.cache import PrefixCache
from radix.errors import PinError
from radix.lease import Lease
from tests.radix.strategies import pack

SYSTEM = [1, 2, 3, 4, 5, 6]


def put(cache: PrefixCache, tokens: list[int]) -> None:
    lease = cache.acquire(cache.key(pack(tokens)))
    assert cache.extend(lease, -(-len(tokens) // cache.page_size) - len(lease.pages))
    cache.publish(lease, len(tokens))
    cache.release(lease)
    cache.check()


def fill_up(cache: PrefixCache) -> Lease:
    """Take every page that can be had."""
    lease = cache.acquire(cache.key(pack([99])))
    assert cache.extend(lease, cache.available)
    cache.check()
    return lease


def warm(cache: PrefixCache) -> dict[str, bool]:
    return {state.name: state.warm for state in cache.pins.states()}


def test_a_soft_pin_is_evicted_last() -> None:
    cache = PrefixCache(10, 2, pin_pages=5)
    put(cache, SYSTEM)
    assert cache.pin("shop", cache.key(pack(SYSTEM))).warm
    put(cache, [8] * 8)  # newer
    lease = cache.acquire(cache.key(pack([99])))
    assert cache.extend(lease, 7)
    cache.check()
    assert cache.peek(cache.key(pack(SYSTEM))) == 6 and warm(cache) == {"shop": True}
    assert cache.extend(lease, 2)
    assert cache.peek(cache.key(pack(SYSTEM))) == 2 and warm(cache) == {"shop": False}
    cache.check()


def test_a_hard_pin_is_never_evicted() -> None:
    cache = PrefixCache(10, 2, pin_pages=5)
    put(cache, SYSTEM)
    cache.pin("shop", cache.key(pack(SYSTEM)), hard=True)
    assert cache.available == 7
    lease = fill_up(cache)
    assert not cache.extend(lease, 1)
    assert cache.peek(cache.key(pack(SYSTEM))) == 6
    cache.unpin("shop")
    assert cache.extend(lease, 3)


def test_whoever_computes_a_cold_pin_makes_it_warm() -> None:
    cache = PrefixCache(10, 2, pin_pages=5)
    assert not cache.pin("soft", cache.key(pack(SYSTEM))).warm
    assert not cache.pin("hard", cache.key(pack(SYSTEM)), hard=True).warm
    lease = cache.acquire(cache.key(pack([*SYSTEM, 7, 7])))
    cache.extend(lease, 4)
    cache.schedule(lease, 8)
    assert warm(cache) == {"soft": False, "hard": False}, "what is scheduled is not there yet"
    cache.publish(lease, 8)
    assert warm(cache) == {"soft": True, "hard": True}
    cache.release(lease)
    cache.check()
    fill_up(cache)
    assert cache.peek(cache.key(pack([*SYSTEM, 7, 7]))) == 6


def test_a_pin_ends_where_its_prompt_ends() -> None:
    cache = PrefixCache(12, 2, pin_pages=5)
    put(cache, [*SYSTEM, 7, 7, 8, 8])
    cache.pin("shop", cache.key(pack(SYSTEM)), hard=True)
    lease = cache.acquire(cache.key(pack([*SYSTEM, 7, 7, 8, 8, 9, 9])))
    cache.extend(lease, 1)
    cache.publish(lease, 12)
    cache.release(lease)
    fill_up(cache)
    assert cache.peek(cache.key(pack([*SYSTEM, 7, 7, 8, 8, 9, 9]))) == 6


def test_the_budget_counts_common_pages_once() -> None:
    cache = PrefixCache(20, 2, pin_pages=4)
    cache.pin("long", cache.key(pack(SYSTEM)))
    cache.pin("same beginning", cache.key(pack([*SYSTEM[:4], 9, 9])))
    assert cache.stats().pinned == 4
    with pytest.raises(PinError, match="needs 1 more pages; 4 of the budget of 4"):
        cache.pin("too much", cache.key(pack([7, 7])))
    cache.unpin("long")
    assert cache.stats().pinned == 3
    cache.pin("now", cache.key(pack([7, 7])))
    cache.check()


def test_wrong_pins_are_named() -> None:
    cache = PrefixCache(20, 2, pin_pages=4)
    cache.pin("a", cache.key(pack(SYSTEM)))
    with pytest.raises(PinError, match="already"):
        cache.pin("a", cache.key(pack([7, 7])))
    with pytest.raises(PinError, match="less than a page"):
        cache.pin("b", cache.key(pack([7])))
    with pytest.raises(PinError, match="no pin called 'c'"):
        cache.unpin("c")
    cache.set_quota("tenant", Quota(2))
    with pytest.raises(PinError, match="the tenant's quota is 2"):
        cache.pin("d", cache.key(pack(SYSTEM), "tenant"))


def test_the_default_budget_is_a_fifth() -> None:
    assert PrefixCache(100, 2).pins.budget == 20
