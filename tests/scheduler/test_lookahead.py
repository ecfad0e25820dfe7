"""Two steps in flight: the next step is planned before the tokens of the running one are known."""

import pytest

from scheduler.arms import ARMS
from scheduler.request import NewRequest
from scheduler.settings import Settings
from tests.scheduler.house import House
from tests.scheduler.oracle import pack


def house(**sizes: int | float | str) -> House:
    defaults = {"page_size": 4, "pages": 64, "max_running": 8, "max_step_tokens": 32, "max_context": 128}
    return House(Settings(**{**defaults, **sizes}), vocab=50, depth=2)


def ask(h: House, prompt: list[int], max_tokens: int = 4, **more: object) -> NewRequest:
    new = h.new(pack(prompt), max_tokens, **more)
    assert h.submit(new) == ""
    return new


def test_a_decode_is_planned_on_the_token_that_the_running_step_samples() -> None:
    h = house()
    ask(h, [1, 2, 3], 3)
    assert h.launch() and h.launch()
    first, second = (flight.plan.chunks[0] for flight in h.scheduler.flights)
    assert (first.start, first.count, first.emits, first.chain) == (0, 3, True, False)
    assert (second.start, second.tokens, second.emits, second.chain) == (3, bytes(4), True, True)
    h.drain()


def test_it_is_known_beforehand_who_ends_by_length() -> None:
    h = house()
    ask(h, [1, 2, 3], 2)
    h.launch(), h.launch()
    h.collect()
    assert not h.launch(), "its last token is being sampled"
    h.drain()
    assert h.runner.computed == 3 + 1


def test_who_ends_by_a_stop_token_has_one_row_too_many_and_nothing_comes_of_it() -> None:
    h = house()
    new = ask(h, [1, 2, 3], 50, stop=frozenset(range(50)))
    h.launch(), h.launch()
    h.collect()
    assert h.finished == {new.request: "stop"}
    assert h.cache.stats().leases == 0, "its pages are free before the void row has run"
    outcome = h.collect()
    assert outcome.progress == []
    h.check_empty()


def test_pages_of_one_who_ended_are_written_by_the_next_only_after_the_void_row() -> None:
    """The pool is so small that the pages change hands at once."""
    h = house(pages=4, max_running=2)
    for number in range(20):
        ask(h, [number, 1, 2, 3, 4, 5], 6, stop=frozenset(range(25)))
    h.drain()


def test_a_cancelled_one_ends_when_its_last_step_has_come_back() -> None:
    h = house(max_step_tokens=8)
    new = ask(h, list(range(40)), 4)
    h.launch(), h.launch()
    h.cancel(new.request)
    assert h.cache.stats().leases == 1
    h.collect()
    assert h.cache.stats().leases == 1
    h.collect()
    assert h.cache.stats().leases == 0 and not h.scheduler.has_work
    assert h.cache.peek(h.cache.key(new.prompt)) == 16, "what was computed stays"


def test_who_built_on_a_failed_step_starts_again_and_is_right() -> None:
    h = house(max_step_tokens=64)
    first = ask(h, list(range(24)), 4)
    h.launch()
    second = ask(h, [*range(24), 9], 4)
    h.launch()
    assert h.scheduler.requests[second.request].held.cached == 24, "it shares what the running step writes"
    h.runner.fail.add(first.request)
    h.excused.add(first.request)
    outcome = h.collect()
    assert [(entry.request, entry.finish) for entry in outcome.progress] == [(first.request, "error")]
    assert h.scheduler.requests[second.request].lease is None
    h.drain()
    assert h.finished[second.request] == "length"


def test_a_sharer_of_the_same_step_starts_again_too() -> None:
    h = house(max_step_tokens=64)
    first, second = ask(h, list(range(24)), 4), ask(h, [*range(24), 9], 4)
    h.launch()
    assert len(h.scheduler.flights[0].plan.chunks) == 2
    h.runner.fail.add(first.request)
    h.excused.add(first.request)
    outcome = h.collect()
    assert [entry.request for entry in outcome.progress] == [first.request]
    h.drain()
    assert h.finished == {first.request: "error", second.request: "length"}


def test_a_step_that_raises_takes_back_what_the_next_one_stood_on() -> None:
    h = house(max_step_tokens=16, max_running=2)
    first = ask(h, list(range(24)), 4)
    h.launch(), h.launch()
    second = ask(h, [*range(24), 9], 4)
    h.runner.explode = True
    h.excused.add(first.request)
    h.collect()
    assert h.cache.stats().pending == 0 and h.cache.peek(h.cache.key(first.prompt)) == 0
    h.drain()
    assert h.finished == {first.request: "error", second.request: "length"}


@pytest.mark.parametrize("pages", range(19, 24))
def test_who_gives_way_is_not_in_flight(pages: int) -> None:
    """Old requests grow while steps that write blocks of a young one's long prompt are running."""
    h = house(pages=pages, max_running=5, max_step_tokens=10)
    for number in range(4):
        ask(h, [number, 1, 2], 40)
    h.step()
    ask(h, [at % 50 for at in range(44)], 4)
    h.drain()
    assert set(h.finished.values()) == {"length"}
    assert h.scheduler.load().preemptions > 0


@pytest.mark.parametrize("arm", sorted(ARMS))
@pytest.mark.parametrize("depth", [1, 2])
def test_every_arm_serves_everybody_rightly(arm: str, depth: int) -> None:
    settings = Settings(page_size=4, pages=48, max_running=6, max_step_tokens=24, max_context=128, arm=arm)
    h = House(settings, vocab=50, depth=depth)
    for number in range(20):
        ask(h, [*range(20), number, number], 5 + number, stop=frozenset({3}), tenant=f"tenant {number % 3}")
    h.drain()
    load = h.scheduler.load()
    assert len(h.finished) == 20
    assert (load.cached_tokens > 0) == (arm == "shared")
    if arm in ("static", "continuous"):
        assert load.preemptions == 0, "everything it could need was set aside"
