"""A loud tenant beside quiet ones: who is held back and when, what it may still do, and what the others gain."""

import pytest
from msgspec.structs import replace

from scheduler.chunking import TimeBudget
from scheduler.cost import CostModel
from scheduler.fairness import Tenant
from scheduler.isolation import Isolation
from scheduler.settings import Settings
from scheduler.simulate.figures import Figures, TenantFigures
from scheduler.simulate.fleet import simulate
from scheduler.simulate.replica import Engine
from scheduler.trace import TracedRequest, token_block
from tests.scheduler.house import House
from tests.scheduler.oracle import pack


def served(parts: dict[str, float], weights: dict[str, float] | None = None) -> tuple[Isolation, dict[str, Tenant]]:
    """Tenants with so much service each, all of whom sent something at 0 s."""
    isolation = Isolation(enabled=True)
    tenants = {name: Tenant(name, (weights or {}).get(name, 1.0), 0.0) for name in parts}
    for name, tokens in parts.items():
        isolation.arrived(tenants[name], 0.0)
        isolation.served(tenants[name], tokens)
    return isolation, tenants


@pytest.mark.parametrize(
    ("parts", "loud"),
    [
        ({"a": 700.0, "b": 300.0}, "a"),
        ({"a": 700.0, "b": 0.0, "c": 200.0}, "a"),
        ({"a": 500.0, "b": 500.0}, ""),
        ({"a": 550.0, "b": 450.0}, ""),
        ({"a": 700.0}, ""),
        ({}, ""),
    ],
)
def test_who_uses_most_is_held_back_beside_others(parts: dict[str, float], loud: str) -> None:
    isolation, tenants = served(parts)
    assert isolation.held_back(1.0) is tenants.get(loud)


def test_who_has_the_weight_for_it_is_not_loud() -> None:
    isolation, _ = served({"a": 700.0, "b": 300.0}, {"a": 9.0})
    assert isolation.held_back(1.0) is None


def test_nobody_is_held_back_for_those_who_have_a_backlog_themselves() -> None:
    isolation, tenants = served({"a": 700.0, "b": 100.0, "c": 100.0})
    isolation.planned([tenants["a"], tenants["b"], tenants["c"]])
    assert isolation.held_back(1.0) is None
    isolation.planned([tenants["a"], tenants["b"]])
    assert isolation.held_back(1.0) is tenants["a"]
    assert not isolation.hurries([tenants["a"], tenants["b"]])
    assert isolation.hurries([tenants["a"], tenants["c"]])


def test_who_has_been_away_for_long_holds_nobody_back() -> None:
    isolation, tenants = served({"a": 700.0, "b": 100.0})
    isolation.arrived(tenants["a"], 9.0)
    assert isolation.held_back(9.5) is tenants["a"]
    assert isolation.held_back(10.5) is None


def test_service_of_long_ago_does_not_count() -> None:
    isolation, tenants = served({"a": 700.0, "b": 100.0})
    for now in (0.0, 31.0, 62.0):
        isolation.arrived(tenants["a"], now)
        isolation.arrived(tenants["b"], now)
        held_back = isolation.held_back(now)
        isolation.served(tenants["b"], 400.0)
    assert held_back is tenants["b"]


def test_switched_off_it_remembers_nothing() -> None:
    isolation = Isolation(enabled=False)
    tenant = Tenant("a", 1.0, 0.0)
    isolation.arrived(tenant, 0.0)
    isolation.served(tenant, 9.0)
    assert isolation.held_back(1.0) is None
    assert not isolation._arrivals and not isolation._served


# ---------------------------------------------------------------------- the budget


def test_a_narrow_budget_is_a_shorter_step_and_still_a_page() -> None:
    budget = TimeBudget(1000, seconds=0.05, least=16)
    budget.open(CostModel(a=0.004, b=1e-4, c=0.0, d=0.0), ready=True)
    budget.charge(10, 0)
    assert 449 <= budget.grant(900, 0) <= 450
    budget.narrow(0.015)
    count = budget.grant(900, 0)
    assert 99 <= count <= 100
    budget.take(count, 0)
    assert budget.spent
    budget.open(CostModel(a=0.004, b=1e-4, c=0.0, d=0.0), ready=True)
    budget.charge(200, 0)
    budget.take(100, 0)
    budget.narrow(0.015)
    assert budget.grant(900, 0) == 16, "whatever others have in the step"


def test_a_narrow_step_is_not_shorter_than_two_empty_ones() -> None:
    budget = TimeBudget(1000, seconds=0.05, least=16)
    budget.open(CostModel(a=0.02, b=1e-4, c=0.0, d=0.0), ready=True)
    budget.narrow(0.015)
    assert budget.grant(900, 0) == 200


# ---------------------------------------------------------------------- steps


def crowd(isolation_s: float) -> House:
    """The loud tenant decodes eight requests and has more; the quiet one has been seen before and is away."""
    settings = Settings(
        page_size=4,
        pages=400,
        max_running=12,
        max_step_tokens=64,
        max_context=200,
        inter_token_s=0.05,
        isolation_s=isolation_s,
    )
    h = House(settings, vocab=50)
    h.submit(h.new(pack([1, 2, 3]), 2, tenant="quiet"))
    h.drain()
    for number in range(8):
        h.submit(h.new(pack([4, number, 5, 6]), 150, tenant="loud"))
    for _ in range(40):
        h.step()
    h.now += 1.0
    return h


def rows(h: House) -> dict[str, int]:
    """Chunks by tenant of the step that is planned next; it is run and committed."""
    assert h.launch()
    found = {"loud": 0, "quiet": 0}
    for chunk in h.scheduler.flights[-1].plan.chunks:
        found[h.scheduler.requests[chunk.request].new.tenant] += 1
    h.collect()
    return found


def test_a_quiet_request_starts_in_a_step_of_its_own() -> None:
    h = crowd(0.01)
    assert rows(h) == {"loud": 8, "quiet": 0}
    h.submit(h.new(pack([7, 8, 9]), 9, tenant="quiet"))
    assert rows(h) == {"loud": 0, "quiet": 1}
    assert rows(h) == {"loud": 8, "quiet": 1}, "the gap of a stream is one short step"
    h.drain()


def test_without_isolation_it_shares_the_step_of_all() -> None:
    h = crowd(0.05)
    h.submit(h.new(pack([7, 8, 9]), 9, tenant="quiet"))
    assert rows(h) == {"loud": 8, "quiet": 1}
    h.drain()


def test_however_often_quiet_requests_come_streams_go_on_within_the_aim() -> None:
    h = crowd(0.01)
    h.scheduler.fit.model = CostModel(a=0.006, b=1e-4, c=0.0, d=0.0)
    h.scheduler.fit.observe = lambda *seen: None  # type: ignore[method-assign]  # what a step takes is given
    without = longest = 0.0
    for number in range(30):
        h.submit(h.new(pack([7, number]), 1, tenant="quiet"))
        assert h.launch()
        flight = h.scheduler.flights[-1]
        seconds = h.scheduler.fit.model.seconds(*flight.work)
        loud = any(h.scheduler.requests[chunk.request].new.tenant == "loud" for chunk in flight.plan.chunks)
        without += seconds
        longest = max(longest, without)
        without = 0.0 if loud else without
        h.collect()
    assert 0.012 < longest <= 0.05
    h.drain()


# ---------------------------------------------------------------------- what it is for

COST = CostModel(a=4e-3, b=1.5e-4, c=0.0, d=0.0)
SIZES = Settings(page_size=16, pages=4000, max_running=96, max_step_tokens=512, max_waiting=100_000, inter_token_s=0.05)


def requests_of(tenant: str, every_s: float, count: int, offset: float = 0.0) -> list[TracedRequest]:
    return [
        TracedRequest(offset + number * every_s, token_block(f"{tenant} {number}", 48), 40, tenant=tenant)
        for number in range(count)
    ]


def run(trace: list[TracedRequest], isolation_s: float) -> Figures:
    return simulate(sorted(trace, key=lambda one: one.arrival), Engine(replace(SIZES, isolation_s=isolation_s), COST))


def of(figures: Figures, name: str) -> TenantFigures:
    return next(tenant for tenant in figures.tenants if tenant.tenant == name)


def test_the_quiet_one_is_served_sooner_and_the_loud_one_is_not_starved() -> None:
    quiet, loud = requests_of("quiet", 0.151, 60, 1.0), requests_of("loud", 0.0067, 1500)
    alone = of(run(quiet, 0.0125), "quiet")
    before, after = run([*quiet, *loud], 0.0), run([*quiet, *loud], 0.0125)
    assert of(before, "quiet").ttft_p99 > 2.5 * alone.ttft_p99
    assert of(after, "quiet").ttft_p99 < 0.7 * of(before, "quiet").ttft_p99
    assert of(after, "quiet").ttft_p50 < 1.5 * alone.ttft_p50
    assert after.requests == after.requests_per_s * after.seconds == pytest.approx(1560)
    assert after.seconds < 1.4 * before.seconds
    assert after.itl_p99 <= SIZES.inter_token_s
    assert after.preemptions < before.preemptions, "rows are free"


def test_a_lone_tenant_and_equal_ones_lose_nothing() -> None:
    flood = requests_of("a", 0.004, 600)
    equal = [*requests_of("a", 0.008, 300), *requests_of("b", 0.008, 300)]
    for trace in (flood, equal):
        assert run(trace, 0.0125) == run(trace, 0.0)
