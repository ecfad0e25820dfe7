"""Walls and quotas: what tenants share, what they cannot find, and how many pages they get."""

import pytest

from radix.accounts import Quota
from radix.cache import PrefixCache
from radix.errors import CacheError
from radix.hashing import Key, xxh3
from radix.stats import TenantPages
from tests.radix.strategies import pack

PROMPT = [1, 2, 3, 4, 5, 6, 7]  # three whole pages of 2, and a token


def put(cache: PrefixCache, tokens: list[int], tenant: str, namespace: str = "") -> list[int]:
    """Cache a sequence as a tenant; its pages."""
    lease = cache.acquire(cache.key(pack(tokens), tenant, namespace))
    assert cache.extend(lease, -(-len(tokens) // cache.page_size) - len(lease.pages))
    cache.publish(lease, len(tokens))
    cache.release(lease)
    cache.check()
    return lease.pages


def cached(cache: PrefixCache, tokens: list[int], tenant: str, namespace: str = "") -> int:
    return cache.peek(cache.key(pack(tokens), tenant, namespace))


def pages_of(cache: PrefixCache, tenant: str | None) -> TenantPages:
    return next(entry for entry in cache.tenants() if entry.tenant == tenant)


def test_without_a_public_prompt_tenants_share_nothing() -> None:
    cache = PrefixCache(32, 2)
    put(cache, [*PROMPT, 9], "a")
    assert cached(cache, [*PROMPT, 9], "a") == 8
    assert cached(cache, [*PROMPT, 9], "b") == 0
    assert cached(cache, [*PROMPT, 9], "a", "other user") == 0


def test_a_public_prompt_is_shared_by_all_and_what_follows_by_nobody() -> None:
    cache = PrefixCache(32, 2)
    cache.register(pack(PROMPT))
    ours = put(cache, [*PROMPT, 8, 9, 9], "a")
    assert cached(cache, [*PROMPT, 8, 9, 9], "a") == 10
    assert cached(cache, [*PROMPT, 8, 9, 9], "b") == 6, "the whole pages of the prompt and not a token more"
    theirs = put(cache, [*PROMPT, 8, 9, 9], "b")
    assert theirs[:3] == ours[:3] and not set(theirs[3:]) & set(ours[3:])
    assert (pages_of(cache, None).cached, pages_of(cache, "a").cached, pages_of(cache, "b").cached) == (3, 2, 2)


def test_a_tail_behind_a_public_prompt_is_its_tenants_own() -> None:
    cache = PrefixCache(32, 4)
    cache.register(pack([1, 2, 3, 4]))
    put(cache, [1, 2, 3, 4, 5, 6], "a")
    assert cached(cache, [1, 2, 3, 4, 5, 6], "b") == 4
    assert cached(cache, [1, 2, 3, 4, 5, 6], "a", "other user") == 4
    assert cached(cache, [1, 2, 3, 4, 5, 6], "a") == 6


def test_whoever_only_begins_like_a_public_prompt_shares_so_much() -> None:
    cache = PrefixCache(32, 2)
    cache.register(pack(PROMPT))
    put(cache, PROMPT, "a")
    assert cached(cache, [1, 2, 3, 4, 9, 9], "b") == 4
    assert cached(cache, [2, 2, 3, 4], "b") == 0


def test_what_was_computed_before_a_prompt_became_public_stays_private() -> None:
    cache = PrefixCache(32, 2)
    put(cache, PROMPT, "a")
    cache.register(pack(PROMPT))
    assert cached(cache, PROMPT, "b") == 0
    assert cached(cache, PROMPT, "a") == 0, "the public chain is another one, also for the tenant"


def test_after_unregistering_new_sequences_are_private() -> None:
    cache = PrefixCache(32, 2)
    cache.register(pack(PROMPT))
    cache.register(pack(PROMPT[:4]))
    put(cache, PROMPT, "a")
    assert cache.unregister(pack(PROMPT))
    assert cached(cache, PROMPT, "b") == 4, "the shorter prompt is still public"
    assert cache.unregister(pack(PROMPT[:4]))
    assert cached(cache, PROMPT, "b") == 0
    assert not cache.unregister(pack(PROMPT))


def test_a_colliding_digest_does_not_make_private_text_public() -> None:
    cache = PrefixCache(32, 2, block_hash=lambda block, seed: 5)
    cache.register(pack([1, 2]))
    assert cache.key(pack([3, 4]), "a").public_blocks == 0
    assert cache.key(pack([1, 2]), "a").public_blocks == 1


def test_equal_digests_do_not_lead_over_a_wall() -> None:
    """A hash that forgets what was before: the tenants' blocks behind the public prompt have one digest, and equal
    tokens."""
    cache = PrefixCache(32, 2, block_hash=lambda block, seed: xxh3(block, 0))
    cache.register(pack([1, 2]))
    put(cache, [1, 2, 3, 4], "a")
    assert cached(cache, [1, 2, 3, 4], "a") == 4
    assert cached(cache, [1, 2, 3, 4], "b") == 2
    assert cached(cache, [1, 2, 3, 4], "a", "other user") == 2
    put(cache, [1, 2, 3, 4], "b")
    cache.check()


def test_every_process_has_its_own_chains() -> None:
    keys: list[Key] = [PrefixCache(4, 2, secret=secret).key(pack(PROMPT), "a") for secret in (b"x", b"y")]
    assert not set(keys[0].digests) & set(keys[1].digests)


def test_names_that_are_ours_are_refused() -> None:
    with pytest.raises(CacheError, match="not a tenant's name"):
        PrefixCache(4, 2).key(pack(PROMPT), "\0public")
    with pytest.raises(CacheError, match="at least a page"):
        PrefixCache(4, 8).register(pack(PROMPT))


# ---------------------------------------------------------------------- quotas


def test_a_quota_bounds_what_a_tenant_holds() -> None:
    cache = PrefixCache(32, 2)
    cache.set_quota("a", Quota(limit=4))
    lease = cache.acquire(cache.key(pack([1] * 20), "a"))
    assert cache.room("a") == 4 and cache.quota("a") == 4
    assert cache.extend(lease, 4)
    assert not cache.extend(lease, 1), "all of it is held: nothing to evict"
    assert cache.stats().refused_for_quota == 1
    assert len(lease.pages) == 4
    other = cache.acquire(cache.key(pack([1] * 20), "b"))
    assert cache.extend(other, 20)
    cache.check()


def test_a_tenant_at_its_limit_evicts_its_own_pages_down_to_its_watermark() -> None:
    cache = PrefixCache(64, 2)
    cache.set_quota("a", Quota(limit=10, watermark=6))
    put(cache, [9] * 12, "b")
    for number in range(5):
        put(cache, [number] * 4, "a")
    assert pages_of(cache, "a").cached == 10
    put(cache, [7, 7], "a")
    assert cache.stats().evicted == cache.stats().evicted_for_quota == 5, "one page over, and four down to the mark"
    assert pages_of(cache, "a").cached == 6
    assert cached(cache, [0] * 4, "a") == 0 and cached(cache, [7, 7], "a") == 2
    assert cached(cache, [9] * 12, "b") == 12, "nobody else has lost a page"


def test_above_the_watermark_a_tenant_is_the_first_to_lose_pages() -> None:
    cache = PrefixCache(10, 2)
    cache.set_quota("a", Quota(limit=8, watermark=2))
    put(cache, [9] * 8, "b")  # older, and would be evicted first
    put(cache, [1] * 10, "a")
    lease = cache.acquire(cache.key(pack([5] * 8), "c"))
    assert cache.extend(lease, 4)
    assert pages_of(cache, "a").cached == 2 and cached(cache, [9] * 8, "b") == 8
    assert cache.extend(lease, 2), "then everybody is equal: the oldest goes"
    assert cached(cache, [9] * 8, "b") == 4 and cached(cache, [1] * 10, "a") == 4
    cache.check()


def test_public_pages_are_on_nobodys_quota() -> None:
    cache = PrefixCache(32, 2)
    cache.set_quota("a", Quota(limit=4))
    cache.register(pack([1] * 12))
    lease = cache.acquire(cache.key(pack([1] * 12 + [2, 3, 4]), "a"))
    for end in (8, 12, 15):
        assert cache.extend(lease, -(-end // 2) - len(lease.pages))
        cache.schedule(lease, end)
        cache.publish(lease, end)
    cache.release(lease)
    assert (pages_of(cache, None).cached, pages_of(cache, "a").cached) == (6, 2)


def test_a_lowered_quota_takes_nothing_away_at_once() -> None:
    cache = PrefixCache(32, 2)
    put(cache, [1] * 12, "a")
    cache.set_quota("a", Quota(limit=3))
    cache.check()
    assert cached(cache, [1] * 12, "a") == 12
    put(cache, [2, 2], "a")
    assert pages_of(cache, "a").cached <= 3
    cache.set_quota("a", Quota())
    cache.check()


def test_above_a_lowered_quota_nothing_more_is_granted_and_asking_for_nothing_is_fine() -> None:
    cache = PrefixCache(4, 2)
    lease = cache.acquire(cache.key(pack([1, 2, 3, 4]), "a"))
    assert cache.extend(lease, 2)
    cache.set_quota("a", Quota(limit=1))
    assert cache.extend(lease, 0) and not cache.extend(lease, 1)
    cache.check()


@pytest.mark.parametrize("quota", [(-1, 0), (4, 5), (4, -1)])
def test_impossible_quotas_are_refused(quota: tuple[int, int]) -> None:
    with pytest.raises(CacheError, match="quota"):
        Quota(*quota)


def test_nothing_is_kept_of_tenants_that_are_gone() -> None:
    cache = PrefixCache(8, 2)
    for number in range(100):
        put(cache, [number] * 4, f"tenant {number}")
    assert len(cache.books.accounts) <= 1 + 8 and len(cache.tree.roots) <= 8
