"""The order of those who wait, what it costs to keep it, deadlines, and refusals that come in time."""

import pytest

from radix.errors import CacheError, PinError
from scheduler.cost import CostModel
from scheduler.request import NewRequest, RequestRejected
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from tests.scheduler.house import House
from tests.scheduler.oracle import pack


def house(depth: int = 1, pin_pages: int = 0, **sizes: int | float) -> House:
    defaults = {"page_size": 4, "pages": 400, "max_running": 8, "max_step_tokens": 64, "max_context": 256}
    return House(Settings(**{**defaults, **sizes}), vocab=50, depth=depth, pin_pages=pin_pages)


def ask(h: House, prompt: list[int], max_tokens: int = 4, **more: float) -> NewRequest:
    new = h.new(pack(prompt), max_tokens, **more)
    assert h.submit(new) == ""
    return new


def started(h: House) -> list[int]:
    """Requests in the order in which they start."""
    order: list[int] = []
    while h.scheduler.has_work:
        order += [opened.request for opened in h.step().opened]
    return order


def test_whoever_shares_most_goes_first_then_whoever_needs_least() -> None:
    h = house(max_running=1, ageing_s=1000.0)
    ask(h, list(range(40)))
    h.drain()
    cold_long, cold_short = ask(h, [9] * 30), ask(h, [8] * 10)
    some, most = ask(h, [*range(20), 7, 7]), ask(h, [*range(40), 7, 7])
    assert started(h) == [most.request, some.request, cold_short.request, cold_long.request]


def test_an_earlier_span_goes_first_whatever_is_cached() -> None:
    h = house(max_running=1, ageing_s=0.001)
    ask(h, list(range(40)))
    h.drain()
    cold, warm = ask(h, [9] * 30), ask(h, [*range(40), 7, 7])
    assert started(h) == [cold.request, warm.request]


def test_a_cold_request_is_not_starved_by_warm_ones() -> None:
    """Warm requests keep coming faster than they are served; the cold one waits for one span and no longer."""
    h = house(max_running=1, ageing_s=0.05)
    ask(h, list(range(40)))
    h.drain()
    cold = ask(h, [9] * 30)
    for number in range(200):
        if cold.request in h.finished:
            break
        ask(h, [*range(40), number % 50], 2)
        h.step()
    assert cold.request in h.finished


def test_a_match_is_looked_up_again_only_when_it_could_have_changed() -> None:
    h = house(max_running=2, pages=2000, max_step_tokens=32, max_waiting=500)
    running = [ask(h, [number] * 8, 100) for number in range(2)]
    h.step()
    for number in range(100):
        ask(h, [number % 10] * 12 + [number // 10] * 4)
    for _ in range(20):
        h.step()
    looked = h.scheduler.waiting.matches
    for _ in range(60):
        h.step()
    assert h.scheduler.waiting.matches == looked, "all rows are taken, and nothing that they match has changed"
    assert all(request.request in h.open for request in running)
    h.drain()


def test_who_finds_too_few_pages_is_not_looked_up_again_until_there_are_more() -> None:
    h = house(pages=40, max_running=4)
    busy = ask(h, [1] * 100, 40)
    h.step()
    large = ask(h, [2] * 100, 4)
    for _ in range(3):
        h.step()
    looked = h.scheduler.waiting.matches
    for _ in range(20):
        h.step()
    assert h.scheduler.waiting.matches == looked and busy.request in h.open
    h.drain()
    assert h.finished[large.request] == "length"


def test_cold_requests_on_one_prompt_are_matched_a_few_times_each() -> None:
    h = house(max_running=16, pages=2000, max_step_tokens=64, max_waiting=5000)
    for number in range(400):
        ask(h, [*range(120), number % 50, number // 50], 1)
    before = h.runner.computed
    h.drain()
    assert h.runner.computed - before == 120 + 400 * 2
    assert h.scheduler.waiting.matches < 400 * 5


def test_the_newest_of_a_long_queue_does_not_cost_a_plan() -> None:
    """However many wait, one plan looks up a bounded number of matches."""
    h = house(max_running=4, max_waiting=5000, pages=3000)
    for number in range(3000):
        ask(h, [number % 50, number // 50] * 4, 1)
    for _ in range(5):
        before = h.scheduler.waiting.matches
        h.scheduler.plan(h.now)
        plan = h.scheduler.flights[0].plan
        assert h.scheduler.waiting.matches - before <= 64 + 8
        h.take(h.scheduler.commit(h.runner.run(plan), h.now))


@pytest.mark.parametrize("depth", [1, 2])
def test_64_cold_requests_compute_their_system_prompt_once(depth: int) -> None:
    h = house(depth, page_size=16, pages=2000, max_running=64, max_step_tokens=512, max_context=4096)
    for number in range(64):
        ask(h, [*[token % 50 for token in range(2048)], *[number % 50, number // 50] * 32], 1)
    h.drain()
    assert h.runner.computed == 2048 + 64 * 64


@pytest.mark.parametrize("depth", [1, 2])
def test_when_the_producer_is_cancelled_another_takes_over(depth: int) -> None:
    h = house(depth, max_step_tokens=16)
    requests = [ask(h, [*range(64), number], 2) for number in range(5)]
    for _ in range(2):
        h.launch()
        h.collect()
    (producer,) = [r for r in h.scheduler.requests.values() if r.lease is not None]
    h.cancel(producer.new.request)
    h.drain()
    assert h.runner.computed <= 64 + 16 + 4 * 2 + 4 * 2
    assert len(h.finished) == 4 and len(requests) == 5


# ---------------------------------------------------------------------- time


def test_who_has_not_started_in_time_ends() -> None:
    h = house(max_running=1)
    busy, late, patient = ask(h, [1], 50), ask(h, [2], 5, queue_seconds=0.02), ask(h, [3], 5)
    while busy.request in h.open:
        h.take(h.scheduler.expire(h.now))
        h.step()
    assert h.finished[late.request] == "deadline" and h.output[late.request] == []
    h.drain()
    assert h.finished[patient.request] == "length"


def test_who_has_started_in_time_may_go_on_and_who_has_not_ended_in_time_ends() -> None:
    h = house()
    quick, slow = ask(h, [1], 50, queue_seconds=0.02), ask(h, [2], 200, seconds=0.06)
    while h.scheduler.has_work:
        h.take(h.scheduler.expire(h.now))
        h.step()
    assert h.finished == {quick.request: "length", slow.request: "deadline"}
    assert 0 < len(h.output[slow.request]) < 200


def test_deadlines_of_those_who_ended_are_forgotten() -> None:
    h = house(max_waiting=10_000)
    for number in range(6000):
        new = ask(h, [number % 50], 1, seconds=1e6)
        h.cancel(new.request) if number % 100 == 0 else h.scheduler.cancel(new.request, h.now)
    assert len(h.scheduler._deadlines) < 2000


def test_a_request_whose_turn_would_come_too_late_is_refused_at_once() -> None:
    settings = Settings(page_size=4, pages=4000, max_running=4, max_step_tokens=64, max_context=1000)
    scheduler = Scheduler(settings, cost=CostModel(a=0.01, b=0.001, c=0.0))
    for number in range(40):
        scheduler.submit(NewRequest(number, pack([number] * 100), 10), 0.0)
    # 4,000 tokens at 1 ms each are ahead of it.
    with pytest.raises(RequestRejected, match="its turn would come in about 4") as refused:
        scheduler.submit(NewRequest(100, pack([1] * 100), 10, queue_seconds=2.0), 0.0)
    assert refused.value.code == "server_overloaded" and 2 < refused.value.retry_after_s < 4
    scheduler.submit(NewRequest(101, pack([1] * 100), 10, queue_seconds=10.0), 0.0)
    scheduler.submit(NewRequest(102, pack([1] * 100), 10, tenant="other", queue_seconds=1.0), 0.0)
    scheduler.check()


def test_a_full_queue_says_when_to_try_again() -> None:
    settings = Settings(page_size=4, pages=4000, max_running=4, max_context=1000, max_waiting=30)
    scheduler = Scheduler(settings, cost=CostModel(a=0.01, b=0.01, c=0.0))
    for number in range(30):
        scheduler.submit(NewRequest(number, pack([number] * 100), 10), 0.0)
    with pytest.raises(RequestRejected, match="full, with 30 waiting") as refused:
        scheduler.submit(NewRequest(100, pack([1] * 100), 10), 0.0)
    assert refused.value.retry_after_s > 10


# ---------------------------------------------------------------------- public prompts


def test_a_published_prompt_is_computed_before_anybody_asks() -> None:
    h = house(pin_pages=30, max_step_tokens=16)
    prompt = list(range(42))
    h.scheduler.publish_prompt("shop", pack(prompt), h.now)
    assert h.scheduler.has_work
    h.drain()
    assert h.runner.computed == 40, "whole pages only"
    assert [state.warm for state in h.cache.pins.states()] == [True]
    assert h.scheduler.load().prompt_tokens == h.scheduler.load().output_tokens == 0, "it is nobody's request"
    for tenant in ("a", "b"):
        ask(h, [*prompt, 7], 1, tenant=tenant)
    h.drain()
    assert h.runner.computed == 40 + 2 * 3
    h.scheduler.publish_prompt("again", pack(prompt), h.now, pin="")
    assert not h.scheduler.has_work, "it is there already"
    h.scheduler.withdraw_prompt("shop", pack(prompt))
    assert h.cache.pins.states() == []


def test_prompts_that_cannot_be_published_are_named() -> None:
    h = house(pin_pages=4)
    with pytest.raises(CacheError, match="at least a page"):
        h.scheduler.publish_prompt("short", pack([1]), h.now)
    with pytest.raises(CacheError, match="does not fit into the context"):
        h.scheduler.publish_prompt("long", pack([1] * 300), h.now)
    with pytest.raises(PinError, match="budget of 4"):
        h.scheduler.publish_prompt("large", pack([1] * 40), h.now)
    with pytest.raises(PinError, match="soft or hard"):
        h.scheduler.publish_prompt("odd", pack([1] * 8), h.now, pin="firm")
    assert not h.scheduler.has_work


def test_a_hard_pin_leaves_room_for_who_is_there_and_bounds_who_comes() -> None:
    h = house(pages=20, pin_pages=10)
    new = ask(h, [1] * 40, 30)  # 18 pages
    with pytest.raises(PinError, match="too few for a request that is open"):
        h.scheduler.publish_prompt("hard", pack([2] * 16), h.now, pin="hard")
    h.drain()
    assert h.finished[new.request] == "length"
    h.scheduler.publish_prompt("hard", pack([2] * 16), h.now, pin="hard")
    assert h.submit(h.new(pack([1] * 40), 30)) == "context_length_exceeded"
    h.drain()
