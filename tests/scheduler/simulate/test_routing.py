"""Each policy on traffic made by hand."""

from collections import Counter

from scheduler.simulate.recorder import Traffic
from scheduler.simulate.routing import ROUTERS, ByPrefix, ByTenant, LeastLoaded, Random, RoundRobin, within_bound
from scheduler.trace import TracedRequest, token_block


def traffic(*requests: int) -> list[Traffic]:
    found = []
    for count in requests:
        one = Traffic()
        one.requests = count
        found.append(one)
    return found


def asking(name: str, question: str = "", tenant: str = "") -> TracedRequest:
    """A system prompt of 256 tokens and a question of 64."""
    return TracedRequest(0.0, token_block(name, 256) + token_block(f"question {question}", 64), 1, tenant=tenant)


def test_every_policy_names_a_replica() -> None:
    for make in ROUTERS.values():
        router = make(3, 4096)
        assert all(router.route(asking(str(n)), traffic(0, 5, 9)) in range(3) for n in range(20))


def test_random_and_round_robin_spread() -> None:
    turns, draws = RoundRobin(), Random()
    assert [turns.route(asking("x"), traffic(0, 0, 0)) for _ in range(5)] == [0, 1, 2, 0, 1]
    drawn = Counter(draws.route(asking("x"), traffic(0, 0, 0)) for _ in range(300))
    assert min(drawn.values()) > 60


def test_least_loaded_takes_turns_among_equals() -> None:
    router = LeastLoaded()
    assert router.route(asking("x"), traffic(4, 2, 3)) == 1
    assert [router.route(asking("x"), traffic(1, 1, 1)) for _ in range(3)] == [2, 0, 1]
    equals = traffic(1, 1)
    equals[0].unanswered_tokens = 100
    assert router.route(asking("x"), equals) == 1


def test_nobody_has_much_more_than_the_mean() -> None:
    assert within_bound(traffic(7, 0, 0)) == [0, 1, 2], "a few requests are no load"
    assert within_bound(traffic(40, 30, 20)) == [1, 2]
    assert within_bound(traffic(100, 100)) == [0, 1]


def test_a_tenant_stays_where_it_is_until_that_is_too_much() -> None:
    router = ByTenant()
    homes = {name: router.route(asking("x", tenant=name), traffic(0, 0, 0, 0)) for name in map(str, range(200))}
    assert len(set(homes.values())) == 4
    for name, home in homes.items():
        assert router.route(asking("y", tenant=name), traffic(5, 5, 5, 5)) == home
    crowded = traffic(*(60 if index == homes["0"] else 10 for index in range(4)))
    assert router.route(asking("x", tenant="0"), crowded) != homes["0"]


def test_a_prefix_goes_where_it_went() -> None:
    router = ByPrefix(3, 1 << 20)
    idle = traffic(0, 0, 0)
    first = router.route(asking("a", "1"), idle)
    busy = traffic(*(5 if index == first else 0 for index in range(3)))
    second = router.route(asking("b", "1"), busy)
    assert second != first, "an unknown prompt goes to whoever has least to do"
    assert router.route(asking("a", "2"), busy) == first
    assert router.route(asking("b", "2"), busy) == second
    crowded = traffic(*(60 if index == first else 10 for index in range(3)))
    elsewhere = router.route(asking("a", "3"), crowded)
    assert elsewhere != first
    longest = TracedRequest(0.0, asking("a", "3").prompt + bytes(400), 1)
    assert router.route(longest, idle) == elsewhere, "the longest beginning decides"


def test_what_was_sent_long_ago_is_forgotten() -> None:
    router = ByPrefix(2, capacity_tokens=10 * 64)
    away = traffic(1, 0)
    assert router.route(asking("a", "1"), away) == 1
    assert router.route(asking("a", "2"), traffic(0, 1)) == 1
    for number in range(3):
        router.route(asking(f"other {number}"), away)
    assert router.route(asking("a", "3"), traffic(0, 1)) == 0
    assert sum(map(len, router._sent)) <= 20 and len(router._holders) <= 20


def test_the_beginning_of_a_prompt_is_forgotten_last() -> None:
    router = ByPrefix(2, capacity_tokens=5 * 64)
    away = traffic(1, 0)
    assert router.route(asking("a", "1"), away) == 1
    short = TracedRequest(0.0, token_block("short", 2 * 64), 1)
    assert router.route(short, away) == 1
    assert router.route(asking("a", "2"), traffic(0, 1)) == 1
