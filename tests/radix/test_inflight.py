"""Sharing what is not computed yet: pending pages, waiting behind a producer, hand-over, taking back."""

import pytest

from radix.cache import PrefixCache
from radix.errors import LeaseError
from radix.inflight import Ticket
from radix.lease import Lease
from tests.radix.strategies import pack

TEXT = list(range(16))


def start(cache: PrefixCache, tokens: list[int], tenant: str = "") -> Lease:
    lease = cache.acquire(cache.key(pack(tokens), tenant))
    assert cache.extend(lease, -(-len(tokens) // cache.page_size) - len(lease.pages))
    return lease


def wait(cache: PrefixCache, tokens: list[int], tenant: str = "") -> Ticket:
    ticket = cache.ticket(cache.key(pack(tokens), tenant))
    assert cache.frontiers.take(tenant) is ticket
    cache.match(ticket)
    cache.check()
    return ticket


def test_what_is_scheduled_is_shared_at_once() -> None:
    cache = PrefixCache(32, 2)
    first = start(cache, TEXT)
    cache.schedule(first, 7)
    assert cache.stats().pending == 3
    second = cache.acquire(cache.key(pack(TEXT)))
    assert (second.cached, second.pages) == (6, first.pages[:3])
    cache.publish(first, 7)
    assert cache.stats().pending == 0
    cache.check()


def test_two_steps_in_flight_are_settled_one_after_the_other() -> None:
    cache = PrefixCache(32, 2)
    lease = start(cache, TEXT)
    cache.schedule(lease, 4)
    cache.schedule(lease, 9)
    assert (cache.stats().pending, lease.pending) == (4, [(0, 2), (2, 4)])
    cache.publish(lease, 4)
    assert (cache.stats().pending, lease.pending) == (2, [(2, 4)])
    with pytest.raises(LeaseError, match="steps in flight"):
        cache.release(lease)
    cache.check()
    cache.publish(lease, 9)
    cache.release(lease)
    cache.check()


def test_a_waiting_one_is_woken_when_all_that_is_common_is_scheduled() -> None:
    cache = PrefixCache(64, 2)
    producer = start(cache, TEXT)
    cache.schedule(producer, 4)
    long, short = wait(cache, TEXT), wait(cache, [*TEXT[:8], 99, 99])
    other = wait(cache, [*TEXT[:4], 98, 98])
    assert long.producer is short.producer is producer and other.producer is None
    cache.schedule(producer, 6)
    assert cache.frontiers.take("") is None, "there is more to come for both"
    cache.schedule(producer, 8)
    assert cache.frontiers.take("") is short and cache.frontiers.take("") is None
    cache.match(short)
    assert short.cached == 8 and short.producer is None
    cache.schedule(producer, 16)
    assert cache.frontiers.take("") is long
    cache.match(long)
    assert long.cached == 16
    cache.check()


@pytest.mark.parametrize("how", ["released", "retracted"])
def test_when_a_producer_goes_the_first_waiting_one_takes_over(how: str) -> None:
    cache = PrefixCache(64, 2)
    producer = start(cache, TEXT)
    cache.schedule(producer, 6)
    tickets = [wait(cache, [*TEXT, number]) for number in range(3)]
    if how == "released":
        cache.publish(producer, 6)
        cache.release(producer)
    else:
        cache.retract(producer)
    woken = [cache.frontiers.take("") for _ in tickets]
    assert woken == tickets, "in the order in which they came"
    cache.match(woken[0])
    assert woken[0].cached == (6 if how == "released" else 0), "what was computed stays"
    cache.frontiers.drop(woken[0])
    heir = start(cache, [*TEXT, 0])
    cache.schedule(heir, 8)
    for ticket in woken[1:]:
        cache.match(ticket)
        assert ticket.producer is heir
    cache.schedule(heir, 16)
    assert [cache.frontiers.take("") for _ in woken[1:]] == woken[1:]
    cache.check()


def test_a_watched_block_wakes_when_it_is_inserted() -> None:
    cache = PrefixCache(64, 2)
    ticket, stranger = wait(cache, TEXT), wait(cache, [77] * 4)
    lease = start(cache, TEXT[:4])
    cache.schedule(lease, 2)
    assert cache.frontiers.take("") is ticket
    assert cache.frontiers.take("") is None
    assert not ticket.matched and stranger.matched
    cache.check()


def test_tenants_are_woken_apart() -> None:
    cache = PrefixCache(64, 2)
    cache.register(pack(TEXT))
    tickets = {tenant: wait(cache, [*TEXT, 5, 5], tenant) for tenant in ("a", "b")}
    producer = start(cache, TEXT, "c")
    cache.schedule(producer, 4)
    for tenant, ticket in tickets.items():
        assert cache.frontiers.take(tenant) is ticket
        cache.match(ticket)
        assert ticket.producer is producer, "public blocks are waited for across tenants"
    private = start(cache, [33] * 8, "a")
    cache.schedule(private, 2)
    assert wait(cache, [33] * 8, "b").producer is None, "private ones are not"


def test_dropped_tickets_leave_nothing() -> None:
    cache = PrefixCache(64, 2)
    producer = start(cache, TEXT)
    cache.schedule(producer, 2)
    tickets = [wait(cache, TEXT), wait(cache, [55] * 6), cache.ticket(cache.key(pack(TEXT)))]
    for ticket in tickets:
        cache.frontiers.drop(ticket)
        cache.frontiers.drop(ticket)
    assert cache.frontiers.take("") is None
    assert not cache.frontiers.watched
    cache.check()


def test_a_failed_step_takes_its_blocks_and_all_that_stands_on_them() -> None:
    cache = PrefixCache(64, 2)
    producer = start(cache, TEXT)
    cache.schedule(producer, 4)
    cache.publish(producer, 4)
    early = start(cache, [*TEXT[:4], 44, 44])  # stands on what is written
    cache.schedule(early, 6)
    cache.schedule(producer, 12)
    late = start(cache, [*TEXT[:8], 43, 43])  # stands on what is pending
    cache.schedule(late, 10)
    later = start(cache, [*TEXT[:8], 43, 43, 42, 42])
    fallen = cache.retract(producer)
    assert set(map(id, fallen)) == {id(late), id(later)}
    assert all(lease.released for lease in (producer, late, later)) and not early.released
    cache.check()
    assert cache.peek(cache.key(pack(TEXT))) == 4
    assert cache.peek(cache.key(pack([*TEXT[:8], 43, 43]))) == 4
    assert cache.stats().pending == 1
    cache.publish(early, 6)
    cache.release(early)
    cache.check()


def test_a_failed_step_without_pending_blocks_is_a_release_without_a_tail() -> None:
    cache = PrefixCache(64, 4)
    lease = start(cache, TEXT[:6])
    cache.publish(lease, 6)
    assert cache.retract(lease) == []
    assert cache.peek(cache.key(pack(TEXT))) == 4
    assert cache.stats().private == 0
