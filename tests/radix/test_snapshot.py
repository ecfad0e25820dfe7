"""What people are shown of the tree, and the counters."""

from radix.cache import PrefixCache
from radix.snapshot import PREVIEW_TOKENS, Viewer
from radix.stats import TokenCounts, classify
from tests.radix.strategies import pack

SYSTEM = list(range(8))


def put(cache: PrefixCache, tokens: list[int], tenant: str) -> None:
    lease = cache.acquire(cache.key(pack(tokens), tenant))
    assert cache.extend(lease, -(-len(tokens) // cache.page_size) - len(lease.pages))
    cache.publish(lease, len(tokens))
    cache.release(lease)


def house() -> PrefixCache:
    cache = PrefixCache(100, 2)
    cache.register(pack(SYSTEM))
    cache.pin("system", cache.public.key(pack(SYSTEM)))
    for tenant in ("a", "b"):
        for number in range(3):
            put(cache, [*SYSTEM, 50 + number, 7, 7, 7, number], tenant)
    return cache


def test_a_tenant_sees_public_nodes_and_its_own() -> None:
    view = house().snapshot(Viewer("a"))
    assert {node.tenant for node in view.nodes} == {None, "a"}
    (root,) = (node for node in view.nodes if node.parent == 0)
    assert (root.tenant, root.tokens, root.pages, root.depth_tokens, root.pinned) == (None, 8, 4, 0, "soft")
    assert root.preview == pack(SYSTEM)
    assert (root.hits, root.locks, root.idle) == (0, 0, 0), "how others use it is not told"
    own = [node for node in view.nodes if node.tenant == "a" and node.pages == 2]
    assert {node.preview for node in own} == {pack([50 + number, 7, 7, 7]) for number in range(3)}
    assert sum(node.pages for node in view.nodes) == 4 + 3 * 3 and view.hidden_pages == view.other_pages == 0


def test_who_sees_everything_still_reads_nobodys_text() -> None:
    view = house().snapshot(Viewer("a", everything=True))
    assert {node.tenant for node in view.nodes} == {None, "a", "b"}
    assert all(not node.preview for node in view.nodes if node.tenant == "b")
    (root,) = (node for node in view.nodes if node.parent == 0)
    assert root.hits == 5
    assert view.other_pages == 9


def test_it_is_bounded_and_says_what_is_hidden() -> None:
    cache = PrefixCache(400, 2)
    for number in range(100):
        put(cache, [number, 1, 2, 3], "a")
    view = cache.snapshot(Viewer("a"), limit=10)
    assert len(view.nodes) == 10 and view.hidden_pages == 180
    assert {node.preview for node in view.nodes} == {pack([number, 1, 2, 3]) for number in range(90, 100)}, "the livest"
    put(cache, [5] * 200, "b")
    long = cache.snapshot(Viewer("b"))
    assert len(long.nodes[0].preview) == 4 * PREVIEW_TOKENS


def test_what_runs_comes_first() -> None:
    cache = PrefixCache(400, 2)
    for number in range(100):
        put(cache, [number, 1, 2, 3], "a")
    lease = cache.acquire(cache.key(pack([3, 1, 2, 3]), "a"))
    (node,) = cache.snapshot(Viewer("a"), limit=1).nodes
    assert (node.preview, node.locks, node.hits) == (pack([3, 1, 2, 3]), 1, 1)
    cache.release(lease)


def test_tokens_are_counted_by_class() -> None:
    assert classify(10, 20, 30) == TokenCounts(10, 0, 0)
    assert classify(25, 20, 30) == TokenCounts(20, 5, 0)
    assert classify(40, 20, 30) == TokenCounts(20, 10, 10)
    assert classify(40, 20, 0) == TokenCounts(20, 0, 20)
    cache = PrefixCache(8, 2)
    cache.count(100, 60, system=50, history=0)
    cache.count(100, 96, system=50, history=90)
    stats = cache.stats()
    assert stats.hits == TokenCounts(100, 40, 16)
    assert stats.misses == TokenCounts(0, 0, 44)
    assert stats.hits.total + stats.misses.total == 200
