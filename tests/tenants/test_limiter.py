"""Limits: what is admitted never exceeds the rate, counts come back to nothing, refusals take nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backend.errors import BanyanError
from backend.tenants.limiter import Bucket, Limiter, LimitError, Running, duration, period_begin
from backend.tenants.limits import TenantLimits

WALL = 1_795_792_785.0


def limiter(**limits: object) -> Limiter:
    return Limiter(lambda tenant: TenantLimits(**limits) if tenant == "a" else TenantLimits())  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=60))
def test_over_any_time_no_more_than_the_rate(arrivals: list[tuple[float, int]]) -> None:
    """Of prompts: a minute's worth at once, and then the rate."""
    held, now, taken = limiter(input_tokens_per_minute=60), 0.0, 0
    for pause, tokens in arrivals:
        now += pause
        try:
            held.admit("a", tokens, now, WALL)
            taken += tokens
        except LimitError as error:
            assert 0 < error.retry_after_s <= 60
            held.admit("a", tokens, now + error.retry_after_s + 1e-6, WALL)  # as it was promised
            now += error.retry_after_s + 1e-6
            taken += tokens
        assert taken <= 60 + now + 1e-6


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 500)), max_size=40))
def test_output_is_paid_for_in_the_long_run(requests: list[tuple[float, int]]) -> None:
    """Nobody begins while in debt, so that the debt is never more than one answer's."""
    held, now, taken, last = limiter(output_tokens_per_minute=60), 0.0, 0, 0
    for pause, tokens in requests:
        now += pause
        try:
            held.admit("a", 1, now, WALL)
        except LimitError:
            continue
        assert taken <= 60 + now + 1e-6
        running = held.begin("a")
        running.started(0, now)
        running.end(1, 0, tokens, now, WALL)
        taken, last = taken + tokens, tokens
    assert taken - last <= 60 + now + 1e-6


def test_a_refusal_takes_nothing() -> None:
    held = limiter(requests_per_minute=10, input_tokens_per_minute=100)
    held.admit("a", 90, 0.0, WALL)
    for _ in range(50):
        with pytest.raises(LimitError, match="100 input tokens"):
            held.admit("a", 90, 0.0, WALL)
    assert held.headers("a", 0.0, WALL)["x-ratelimit-remaining-requests"] == "9"
    held.admit("a", 10, 0.0, WALL)


def test_a_prompt_beyond_the_limit_is_not_told_to_come_again() -> None:
    with pytest.raises(BanyanError) as caught:
        limiter(input_tokens_per_minute=100).admit("a", 101, 0.0, WALL)
    assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (413, "request_too_large", 0)


def test_cached_tokens_count_by_weight() -> None:
    held = limiter(input_tokens_per_minute=1000, cached_weight=0.25)
    held.admit("a", 800, 0.0, WALL)
    running = held.begin("a")
    running.started(400, 0.0)
    assert held.headers("a", 0.0, WALL)["x-ratelimit-remaining-tokens"] == "500"
    assert running.end(800, 400, 7, 0.0, WALL) == 400 + 100 + 7
    assert running.end(800, 400, 7, 0.0, WALL) == 0
    assert held.spent("a", WALL) == 507


def test_what_never_began_is_given_back() -> None:
    held = limiter(input_tokens_per_minute=1000)
    held.admit("a", 800, 0.0, WALL)
    assert held.begin("a").end(800, 0, 0, 0.0, WALL) == 0
    assert held.headers("a", 0.0, WALL)["x-ratelimit-remaining-tokens"] == "1000"
    assert held.spent("a", WALL) == 0


def test_tenants_do_not_use_each_others_limits() -> None:
    held = limiter(requests_per_minute=1, streams=1, sockets=1)
    held.admit("a", 1, 0.0, WALL)
    held.begin("a")
    held.open_socket("a", "k")
    with pytest.raises(LimitError):
        held.admit("a", 1, 0.0, WALL)
    held.admit("b", 1, 0.0, WALL)
    held.begin("b")
    held.open_socket("b", "k")


def test_streams_and_queued() -> None:
    held = limiter(streams=2, queued=1)
    first = held.begin("a")
    with pytest.raises(LimitError, match="waiting"):
        held.admit("a", 1, 0.0, WALL)
    first.started(0, 0.0)
    second = held.begin("a")
    second.started(0, 0.0)
    with pytest.raises(LimitError, match="in flight"):
        held.begin("a")
    first.end(1, 0, 1, 0.0, WALL)
    held.begin("a")


def test_sockets_of_key_and_tenant() -> None:
    held = limiter(sockets=3, sockets_per_key=2)
    held.open_socket("a", "k1")
    held.open_socket("a", "k1")
    with pytest.raises(LimitError, match="key") as caught:
        held.open_socket("a", "k1")
    assert caught.value.code == "websocket_connection_limit_reached"
    held.open_socket("a", "k2")
    with pytest.raises(LimitError, match="tenant"):
        held.open_socket("a", "k2")
    held.close_socket("a", "k1")
    held.open_socket("a", "k2")


def test_budgets() -> None:
    held = limiter(soft_budget_tokens=10, hard_budget_tokens=20, budget_period="day")
    begins = period_begin("day", WALL)
    assert not held.is_loaded("a", begins)
    held.load("a", begins, 9)
    assert held.is_loaded("a", begins) and "x-banyan-budget" not in held.headers("a", 0.0, WALL)
    running = held.begin("a")
    running.started(0, 0.0)
    running.end(5, 0, 5, 0.0, WALL)
    assert held.headers("a", 0.0, WALL)["x-banyan-budget"] == "soft-limit-reached"
    held.admit("a", 1, 0.0, WALL)
    held.charge("a", 1, WALL)
    with pytest.raises(LimitError) as caught:
        held.admit("a", 1, 0.0, WALL)
    assert (caught.value.code, caught.value.retry_after_s) == ("insufficient_quota", 0)
    held.admit("a", 1, 0.0, WALL + 86_400)  # a new day


def test_periods() -> None:
    assert period_begin("all", WALL) == 0
    assert WALL - 86_400 < period_begin("day", WALL) <= WALL and period_begin("day", WALL) % 86_400 == 0
    assert period_begin("month", 1_798_761_599) == 1_796_083_200  # the last second of a year
    assert period_begin("month", 1_798_761_600) == 1_798_761_600


def test_changed_limits_keep_what_was_used() -> None:
    limits = {"a": TenantLimits(requests_per_minute=10)}
    held = Limiter(lambda tenant: limits[tenant])
    for _ in range(8):
        held.admit("a", 1, 0.0, WALL)
    limits["a"] = TenantLimits(requests_per_minute=9)
    held.admit("a", 1, 0.0, WALL)
    with pytest.raises(LimitError):
        held.admit("a", 1, 0.0, WALL)
    limits["a"] = TenantLimits()
    held.admit("a", 1, 0.0, WALL)
    assert held.headers("a", 0.0, WALL) == {}


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = Bucket(60, 100.0)
    bucket.take(60, 100.0)
    assert bucket.level(50.0) == 0 and bucket.level(101.0) == 1


def test_durations() -> None:
    assert [duration(s) for s in (0, 0.0124, 1, 59.5, 60, 360.25)] == ["0ms", "12ms", "1s", "59.5s", "1m0s", "6m0.25s"]


class Requests(RuleBasedStateMachine):
    """Requests begin, start and end in any order, ends also twice: the counts are those of a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.held = limiter(streams=4, queued=3, requests_per_minute=30, input_tokens_per_minute=300)
        self.now = 0.0
        self.queued: list[Running] = []
        self.started: list[Running] = []
        self.over: list[Running] = []

    @rule(seconds=st.floats(0, 5), tokens=st.integers(0, 100))
    def ask(self, seconds: float, tokens: int) -> None:
        self.now += seconds
        allowed = len(self.queued) + len(self.started) < 4 and len(self.queued) < 3
        try:
            self.held.admit("a", tokens, self.now, WALL)
            self.queued.append(self.held.begin("a"))
            assert allowed
        except LimitError:
            pass

    @precondition(lambda self: self.queued)
    @rule(data=st.data(), cached=st.integers(0, 50))
    def start(self, data: st.DataObject, cached: int) -> None:
        running = self.queued.pop(data.draw(st.integers(0, len(self.queued) - 1)))
        running.started(cached, self.now)
        running.started(cached, self.now)
        self.started.append(running)

    @rule(data=st.data(), output=st.integers(0, 100))
    def end(self, data: st.DataObject, output: int) -> None:
        for running in (self.queued, self.started, self.over):
            if running and data.draw(st.booleans()):
                ended = running.pop() if running is not self.over else running[-1]
                ended.end(50, 10, output, self.now, WALL)
                self.over.append(ended)

    @invariant()
    def counts_are_right(self) -> None:
        self.held.check()
        account = self.held.account_of("a")
        assert account.queued == len(self.queued) and account.streams == len(self.queued) + len(self.started)
        assert all(bucket.level(self.now) <= bucket.rate for bucket in account.buckets.values())


TestRequests = Requests.TestCase
