"""What the scheduler promises, one promise a test. Every House compares the answers and checks all invariants."""

import pytest

from radix.cache import PrefixCache
from radix.errors import InvariantError
from scheduler.errors import SchedulerError
from scheduler.loop import Inline
from scheduler.plan import Sampling, StepResult
from scheduler.request import NewRequest, RequestRejected
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from tests.scheduler.house import House
from tests.scheduler.oracle import pack


def house(**sizes: int) -> House:
    defaults = {"page_size": 4, "pages": 64, "max_running": 8, "max_step_tokens": 32, "max_context": 128}
    return House(Settings(**{**defaults, **sizes}), vocab=50)


def submit(house: House, prompt: list[int], max_tokens: int = 4, **more: object) -> NewRequest:
    new = house.new(pack(prompt), max_tokens, **more)
    assert house.submit(new) == ""
    return new


@pytest.mark.parametrize("max_step_tokens", [8, 15, 64])
def test_prompts_are_chunked_and_decodes_are_in_every_step(max_step_tokens: int) -> None:
    h = house(max_step_tokens=max_step_tokens)
    first = submit(h, [1, 2, 3], 20)
    h.step()
    submit(h, list(range(40)), 2)
    for _ in range(15):
        before = len(h.output[first.request])
        h.step()
        assert len(h.output[first.request]) == before + 1
    h.drain()


def test_a_step_holds_no_more_tokens_than_allowed() -> None:
    h = house(max_step_tokens=10)
    for number in range(12):
        submit(h, [number] * 17, 6)
    while h.scheduler.has_work:
        plan = h.scheduler.plan(h.now)
        assert sum(chunk.count for chunk in plan.chunks) <= 10
        h.take(h.scheduler.commit(h.runner.run(plan), h.now))
    h.check_empty()


@pytest.mark.parametrize("length", [8, 7])
def test_a_full_hit_computes_one_token(length: int) -> None:
    h = house()
    prompt = list(range(length))
    submit(h, prompt, 1)
    h.drain()
    submit(h, prompt, 1)
    plan = h.scheduler.plan(h.now)
    (chunk,), (opened,) = plan.chunks, plan.opened
    assert (chunk.start, chunk.count, chunk.held, chunk.emits, opened.cached) == (length - 1, 1, 1, True, length)
    h.take(h.scheduler.commit(h.runner.run(plan), h.now))
    h.check_empty()


@pytest.mark.parametrize("length", [16, 18])
def test_a_prompt_that_is_scored_is_computed_whole_on_the_pages_of_the_cache(length: int) -> None:
    h = house(max_step_tokens=10)
    prompt = list(range(length))
    submit(h, prompt, 1)
    h.drain()
    cached, computed = h.cache.stats().cached, h.runner.computed
    scored = submit(h, prompt, 1, sampling=Sampling(prompt_logprobs=0))
    outcome = h.step()
    (opened,) = outcome.opened
    assert (opened.cached, opened.tokens, opened.prompt_tokens) == (0, scored.prompt, length)
    h.drain()
    assert h.runner.computed - computed == length
    assert h.cache.stats().cached == cached, "nothing is kept twice"


def test_few_tokens_are_scored_in_a_step_and_others_are_not_held_up() -> None:
    """Each needs logits as wide as the vocabulary."""
    h = house(max_step_tokens=1000, max_context=1000, pages=900, max_running=8)
    scored = [submit(h, [number] * 300, 1, sampling=Sampling(prompt_logprobs=0)).request for number in range(5)]
    other = submit(h, [9] * 200, 1).request
    steps = []
    while h.scheduler.has_work:
        plan = h.scheduler.plan(h.now)
        steps.append({chunk.request: chunk.count for chunk in plan.chunks})
        h.take(h.scheduler.commit(h.runner.run(plan), h.now))
    sums = [sum(count for request, count in step.items() if request in scored) for step in steps]
    assert sums[:5] == [256] * 5 and sum(sums) == 1500
    assert other in {request for step in steps[:2] for request in step}, "it has not waited until all are scored"
    h.check_empty()


def test_the_next_turn_computes_only_what_is_new() -> None:
    h = house()
    first = submit(h, list(range(10)), 9)
    h.drain()
    history = h.text(first.request)
    assert len(history) == 19
    submit(h, [*history, 7, 7], 3)
    outcome = h.step()
    assert outcome.opened[0].cached == 18, "all but the last sampled token, the partial page included"
    h.drain()


def test_cold_requests_on_one_prefix_compute_it_once() -> None:
    h = house(pages=200, max_running=16, max_step_tokens=512)
    for number in range(16):
        submit(h, [*range(64), number], 1)
    h.drain()
    assert h.runner.computed == 64 + 16


def test_a_pool_that_is_too_small_is_slow_and_right() -> None:
    h = house(pages=10, max_running=6)
    for number in range(10):
        submit(h, [number, 1, 2, 3, 4], 30)
    h.drain()
    assert h.scheduler.load().preemptions > 0
    assert set(h.finished.values()) == {"length"}


def test_a_preempted_request_finds_its_pages_again() -> None:
    h = house(pages=12, max_running=2)
    submit(h, [1] * 8, 30)
    submit(h, [2] * 8, 30)
    resumed = []
    while h.scheduler.has_work:
        outcome = h.step()
        resumed += [opened for opened in outcome.opened if opened.resumed]
    assert resumed and h.scheduler.load().preemptions == len(resumed)
    # Twice 37 positions, and what was evicted and had to be computed again: less than starting over.
    assert h.runner.computed < 2 * 37 + 30


def test_two_equal_requests_fit_where_one_fits() -> None:
    """Their pages duplicate each other; the older one lets its duplicates go when they are in the way."""
    h = house(pages=5, max_running=2)
    for _ in range(2):
        submit(h, [1, 2, 3], 18)
    h.drain()


@pytest.mark.parametrize("when", ["waiting", "planned", "between", "running"])
def test_cancel_at_any_point(when: str) -> None:
    h = house(max_running=2)
    other = submit(h, [9] * 6, 8)
    new = submit(h, list(range(20)), 8)
    if when != "waiting":
        plan = h.scheduler.plan(h.now)
        result = h.runner.run(plan)
        if when == "planned":
            assert h.cancel(new.request)
            assert not h.scheduler.cancel(new.request, h.now), "once only"
        progress = h.scheduler.commit(result, h.now)
        assert (new.request in {entry.request for entry in progress}) == (when != "planned")
        h.take(progress)
    if when == "running":
        h.step()
    if when != "planned":
        assert h.cancel(new.request)
    assert not h.scheduler.cancel(new.request, h.now)
    h.drain()
    assert list(h.finished) == [other.request]
    assert h.cache.peek(h.cache.key(new.prompt)) == (0 if when == "waiting" else 20), "what was computed stays"


def test_a_request_that_fails_fails_alone() -> None:
    h = house()
    good, bad = submit(h, [1, 2], 5), submit(h, [3, 4], 5)
    h.excused.add(bad.request)
    h.runner.fail.add(bad.request)
    outcome = h.step()
    assert {entry.request: entry.finish for entry in outcome.progress} == {good.request: "", bad.request: "error"}
    h.drain()
    assert h.finished == {good.request: "length", bad.request: "error"}


def test_a_runner_that_raises_ends_the_requests_of_the_step_and_no_others() -> None:
    h = house(max_running=1)
    first, second = submit(h, [1, 2], 5), submit(h, [3, 4], 5)
    h.excused.add(first.request)
    h.runner.explode = True
    (entry,) = h.step().progress
    assert (entry.request, entry.finish, entry.message) == (
        first.request,
        "error",
        "OnFire: the device is on fire",
    )
    h.drain()
    assert h.finished[second.request] == "length"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (StepResult(99, [[1]]), "step 99"),
        (StepResult(1, []), "0 chunks of 1"),
        (StepResult(1, [[]]), "0 tokens"),
        (StepResult(1, [[-1]]), "token -1"),
        (StepResult(1, [[1 << 24]]), "not from 0 to"),
    ],
)
def test_a_wrong_answer_of_the_runner_is_named(result: StepResult, message: str) -> None:
    h = house()
    new = submit(h, [1, 2])
    h.excused.add(new.request)
    h.loop.executor = Inline(type("Wrong", (), {"run": lambda self, plan: result})(), lambda: 0.0)
    (entry,) = h.step().progress
    assert entry.finish == "error" and message in entry.message
    h.check_empty()


def test_a_stop_token_ends_and_is_included() -> None:
    h = house()
    new = submit(h, [1, 2, 3], 50, stop=frozenset(range(25)))
    h.drain()
    assert h.finished[new.request] == "stop"
    assert h.output[new.request][-1] < 25


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "code", "message"),
    [
        (b"", 1, "invalid_request", "0 bytes"),
        (b"abc", 1, "invalid_request", "3 bytes"),
        (pack([1]), 0, "invalid_request", "max_tokens"),
        (pack([1] * 100), 29, "context_length_exceeded", "context of 128"),
        (pack([1] * 40), 30, "context_length_exceeded", "18 KV pages of 16"),
    ],
)
def test_what_cannot_run_is_refused(prompt: bytes, max_tokens: int, code: str, message: str) -> None:
    scheduler = house(pages=16).scheduler
    with pytest.raises(RequestRejected, match=message) as refused:
        scheduler.submit(NewRequest(1, prompt, max_tokens), 0.0)
    assert refused.value.code == code
    assert not scheduler.has_work
    scheduler.check()


def test_the_largest_that_fits_alone_runs_beside_others() -> None:
    h = house(pages=16)
    for _ in range(3):
        submit(h, [1] * 40, 25)
    submit(h, [2] * 3, 3)
    h.drain()


def test_a_full_queue_and_a_used_id_are_refused() -> None:
    h = house(max_waiting=2)
    new = submit(h, [1])
    with pytest.raises(RequestRejected, match="id 1 is in use"):
        h.scheduler.submit(new, 0.0)
    submit(h, [1])
    assert h.submit(h.new(pack([1]), 1)) == "server_overloaded"
    h.drain()
    h.scheduler.submit(new, 0.0)  # the id is free again


def test_plan_and_commit_take_turns() -> None:
    h = house()
    with pytest.raises(SchedulerError, match="no step is in flight"):
        h.scheduler.commit(StepResult(1, []), 0.0)
    assert h.scheduler.plan(0.0) is None
    submit(h, [1, 2])
    plan = h.scheduler.plan(0.0)
    ahead = h.scheduler.plan(0.0)
    assert [chunk.chain for chunk in ahead.chunks] == [True]
    with pytest.raises(SchedulerError, match="has not been committed"):
        h.scheduler.plan(0.0)
    with pytest.raises(SchedulerError, match="step 7"):
        h.scheduler.commit(StepResult(7, [[1]]), 0.0)
    for launched in (plan, ahead):
        h.take(h.scheduler.commit(h.runner.run(launched), 0.0))
    h.drain()


def test_the_time_in_the_queue_is_known() -> None:
    scheduler = Scheduler(Settings(page_size=4, pages=8))
    scheduler.submit(NewRequest(1, pack([1]), 2), 10.0)
    plan = scheduler.plan(12.5)
    assert [opened.request for opened in plan.opened] == [1]
    assert scheduler.waited(1) == 2.5
    scheduler.commit(StepResult(plan.step, [[1]]), 13.0)
    assert scheduler.waited(1) == 2.5


def test_counters_add_up() -> None:
    h = house(pages=16)
    for number in range(6):
        submit(h, [*range(20), number], 5)
    while h.scheduler.has_work:
        h.step()
        load = h.scheduler.load()
        assert load.pages_free + load.pages_cached + load.pages_private == 16
        assert load.running + load.waiting == len(h.open)
    assert (load.prompt_tokens, load.output_tokens) == (6 * 21, 6 * 5)
    assert load.computed_tokens == h.runner.computed
    assert load.cached_tokens == 5 * 20


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"pages": 0}, ValueError, "pages must be at least 1"),
        ({"page_size": 2.5}, TypeError, "page_size must be an integer"),
        ({"max_running": 64, "max_step_tokens": 63}, ValueError, "every running request"),
    ],
)
def test_settings_name_what_is_wrong(sizes: dict[str, int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Settings(**{"page_size": 4, "pages": 4, **sizes})


def test_a_cache_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="disagree"):
        Scheduler(Settings(page_size=4, pages=8), PrefixCache(9, 4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.running._requests.append(s.running.oldest), "twice"),
        (lambda s: s.requests.pop(1), "neither waiting nor running|ended"),
        (lambda s: setattr(s.running.oldest, "output", 3), "output tokens"),
        (lambda s: setattr(s.running.oldest, "slot", 5), "rows"),
        (lambda s: setattr(s.running.oldest, "lease", None), "no lease"),
        (lambda s: s.running._requests.reverse(), "order of arrival"),
        (lambda s: setattr(s.running.oldest, "computed", 0), "computed 0"),
        (lambda s: setattr(s.running.oldest, "planned", 4), "planned and in flight|planned"),
        (lambda s: setattr(next(iter(s.waiting)), "computed", 1), "has computed tokens"),
    ],
)
def test_check_names_damage(damage: object, message: str) -> None:
    h = house(max_running=2)
    for number in range(3):
        submit(h, [number, 2, 3], 5)
    h.step()
    damage(h.scheduler)
    with pytest.raises(InvariantError, match=message):
        h.scheduler.check()
