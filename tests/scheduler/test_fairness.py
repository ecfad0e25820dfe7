"""Service between tenants: shares, weights, the quiet beside the busy, quotas, and who is preempted for whom."""

from collections import Counter

import pytest

from radix.accounts import Quota
from scheduler.fairness import Fairness
from scheduler.request import NewRequest
from scheduler.settings import Settings
from scheduler.simulate.fleet import simulate
from scheduler.simulate.replica import Engine
from scheduler.trace import shared_prefixes
from tests.scheduler.house import House
from tests.scheduler.oracle import pack


def house(depth: int = 1, pin_pages: int = 0, **sizes: int | float | str) -> House:
    defaults = {
        "page_size": 4,
        "pages": 400,
        "max_waiting": 999,
        "max_running": 8,
        "max_step_tokens": 64,
        "max_context": 128,
        "quantum_tokens": 16,
    }
    return House(Settings(**{**defaults, **sizes}), vocab=50, depth=depth, pin_pages=pin_pages)


def ask(h: House, tenant: str, number: int, prompt: int = 20, max_tokens: int = 8, **more: float) -> NewRequest:
    new = h.new(
        pack([number % 50, number // 50, *[hash(tenant) % 40] * (prompt - 2)]), max_tokens, tenant=tenant, **more
    )
    assert h.submit(new) == ""
    return new


def backlog(h: House, tenants: dict[str, int], steps: int, **more: int) -> Counter[str]:
    """Everybody asks for more than can be served; output tokens by tenant after so many steps."""
    tenant_of: dict[int, str] = {}
    for tenant, count in tenants.items():
        for number in range(count):
            tenant_of[ask(h, tenant, number, **more).request] = tenant
    for _ in range(steps):
        h.step()
    served: Counter[str] = Counter()
    for request, tenant in tenant_of.items():
        served[tenant] += len(h.output[request])
    return served


def test_who_sends_ten_times_as_much_is_not_served_more() -> None:
    served = backlog(house(), {"loud": 400, "quiet": 80}, 120)
    assert served["quiet"] == pytest.approx(served["loud"], rel=0.15)


def test_service_goes_by_weight() -> None:
    h = house()
    h.scheduler.set_tenant("gold", weight=3.0)
    served = backlog(h, {"gold": 200, "plain": 200}, 150)
    assert served["gold"] == pytest.approx(3 * served["plain"], rel=0.2)


def test_who_asks_for_less_than_its_share_gets_all_of_it() -> None:
    h = house()
    for number in range(100):
        ask(h, "loud", number)
    for _ in range(10):
        h.step()
    quiet = ask(h, "quiet", 0)
    steps = 0
    while quiet.request in h.open:
        h.step()
        steps += 1
    # Alone it takes 8 steps; a row has to be made free, which takes no more than a few.
    assert steps <= 8 + 4


@pytest.mark.parametrize("depth", [1, 2])
def test_rows_are_taken_from_a_tenant_that_has_more_than_its_share(depth: int) -> None:
    """All rows are taken for long: nobody who comes later would start before the first of them ends."""
    h = house(depth=depth)
    for number in range(20):
        ask(h, "loud", number, max_tokens=100)
    for _ in range(10):
        h.step()
    quiet = [ask(h, "quiet", number, max_tokens=60) for number in range(6)]
    for _ in range(40):
        h.step()
    assert h.scheduler.load().running == 8
    rows = {tenant.name: tenant.rows for tenant in h.scheduler.fairness.here}
    assert rows == {"loud": 4, "quiet": 4}, "half each, and not more although the quiet one waits"
    assert all(h.output[request.request] for request in quiet[:4])
    assert h.scheduler.load().preemptions == 4
    h.drain()


def test_being_away_earns_no_credit() -> None:
    fairness = Fairness()
    busy, idle = fairness.arrive("busy"), fairness.arrive("idle")
    fairness.charge(busy, 1000)
    fairness.leave(idle)
    assert fairness.arrive("idle").served == busy.served == 1000


def test_debts_stay() -> None:
    fairness = Fairness()
    first, second = fairness.arrive("first"), fairness.arrive("second")
    fairness.charge(first, 500)
    fairness.leave(first)
    assert fairness.arrive("first").served == 500 > second.served


def test_tenants_without_debt_are_forgotten() -> None:
    fairness = Fairness()
    for number in range(20_000):
        tenant = fairness.arrive(f"tenant {number}")
        fairness.charge(tenant, 1)
        fairness.leave(tenant)
    assert len(fairness.tenants) < 5000


def test_a_weight_is_above_zero() -> None:
    with pytest.raises(ValueError, match="weight of tenant 'x'"):
        house().scheduler.set_tenant("x", weight=0)


def test_computing_again_after_a_preemption_is_not_charged() -> None:
    h = house(pages=12, max_running=2, quantum_tokens=1)
    for number in range(2):
        ask(h, "a", number, prompt=8, max_tokens=30)
    h.drain()
    assert h.scheduler.load().preemptions > 0
    assert h.scheduler.fairness.tenants["a"].served == 2 * 8 + 2.0 * 2 * 30


def test_cached_tokens_are_free() -> None:
    h = house()
    ask(h, "a", 1)
    h.drain()
    before = h.scheduler.fairness.tenants["a"].served
    ask(h, "a", 1)
    h.drain()
    # All 20 tokens of the prompt are in the cache; the last of them is computed again.
    assert h.scheduler.fairness.tenants["a"].served - before == 2.0 * 8


def test_pages_are_taken_from_the_tenant_that_holds_most() -> None:
    h = house(pages=40, max_running=8)
    small = ask(h, "small", 0, prompt=6, max_tokens=40)
    for number in range(4):
        ask(h, "large", number, prompt=16, max_tokens=40)
    preempted = Counter()
    while h.scheduler.has_work:
        outcome = h.step()
        preempted.update(opened.request for opened in outcome.opened if opened.resumed)
    assert preempted and small.request not in preempted


def test_the_oldest_is_not_preempted_even_if_it_holds_most() -> None:
    """Else a large request among small ones might never come to its end."""
    h = house(pages=24, max_running=4)
    large = ask(h, "large", 0, prompt=40, max_tokens=40)
    for number in range(3):
        ask(h, f"small {number}", number, prompt=6, max_tokens=40)
    resumed = []
    while h.scheduler.has_work:
        resumed += [opened.request for opened in h.step().opened if opened.resumed]
    assert resumed and large.request not in resumed


def test_a_quota_slows_its_tenant_down_and_nobody_else() -> None:
    h = house(pages=100, max_running=8)
    h.scheduler.set_tenant("bounded", quota=Quota(limit=16))
    for number in range(6):
        ask(h, "bounded", number, prompt=8, max_tokens=40)
    others = [ask(h, "free", number, prompt=8, max_tokens=40) for number in range(3)]
    most = 0
    while h.scheduler.has_work:
        h.step()
        account = h.cache.books.accounts.get("bounded")
        most = max(most, account.used if account else 0)
        free_done = [other for other in others if other.request in h.finished]
        if len(free_done) < 3:
            assert "bounded" in h.cache.books.accounts
    assert 12 < most <= 16
    stats = h.cache.stats()
    assert stats.evicted_for_quota > 0, "its own pages made room"
    assert set(h.finished.values()) == {"length"}


def test_what_a_quota_can_never_hold_is_refused() -> None:
    h = house()
    h.scheduler.set_tenant("bounded", quota=Quota(limit=5))
    new = h.new(pack([1] * 16), 9, tenant="bounded")
    assert h.submit(new) == "quota_exceeded"
    assert h.submit(h.new(pack([1] * 12), 9, tenant="bounded")) == ""
    h.drain()
    # A request alone fills the quota exactly: what it needs is refused nobody, what others of its tenant need waits.
    assert h.cache.books.accounts["bounded"].used <= 5


def test_a_request_without_a_limit_gets_what_its_quota_holds() -> None:
    h = house()
    h.scheduler.set_tenant("bounded", quota=Quota(limit=5))
    size = h.settings.page_size
    new = h.new(pack([1] * 16), 100, tenant="bounded", open_ended=True)
    assert h.submit(new) == ""
    h.drain()
    assert (len(h.output[new.request]), h.finished[new.request]) == (5 * size - 16 + 1, "length")
    assert h.submit(h.new(pack([1] * (5 * size)), 100, tenant="bounded", open_ended=True)) == ""
    assert h.submit(h.new(pack([1] * (5 * size + 1)), 100, tenant="bounded", open_ended=True)) == "quota_exceeded"
    h.drain()


def test_a_request_without_a_limit_gets_what_pinned_pages_leave() -> None:
    h = house(pages=8, pin_pages=4)
    size = h.settings.page_size
    early, late = (h.new(pack([1, number]), 100, open_ended=True) for number in range(2))
    assert h.submit(early) == ""
    h.step()
    h.publish("p", pack([2] * 4 * size), "hard")
    assert h.submit(late) == ""
    h.drain()
    for new in (early, late):
        assert (len(h.output[new.request]), h.finished[new.request]) == (4 * size - 2 + 1, "length")


def test_a_lower_quota_cuts_or_ends_what_is_open() -> None:
    h = house()
    size = h.settings.page_size
    prompt = [1] * 2 * size
    cut = h.new(pack(prompt), 60, tenant="bounded", open_ended=True)
    ended = h.new(pack(prompt), 60, tenant="bounded")
    beyond = h.new(pack(prompt * 2), 60, tenant="bounded", open_ended=True)
    others = h.new(pack(prompt), 60, tenant="free")
    for new in (cut, ended, beyond, others):
        assert h.submit(new) == ""
    h.step()
    h.step()
    h.set_tenant("bounded", quota=Quota(limit=4))
    assert h.finished == {ended.request: "quota", beyond.request: "quota"}
    h.drain()
    assert h.finished[cut.request] == h.finished[others.request] == "length"
    assert (len(h.output[cut.request]), len(h.output[others.request])) == (2 * size + 1, 60)


def test_tenants_have_queues_of_their_own() -> None:
    h = house(max_waiting=100, max_waiting_per_tenant=2)
    for number in range(2):
        ask(h, "loud", number)
    refused = h.new(pack([1]), 1, tenant="loud")
    assert h.submit(refused) == "server_overloaded"
    ask(h, "quiet", 0)
    h.drain()


def test_nobody_is_displaced_in_turn() -> None:
    """Pages are short and tenants many: whoever yields once is not yielded to a moment later, and so on for ever."""
    settings = Settings(page_size=16, pages=100, max_running=64, max_step_tokens=2048)
    figures = simulate(shared_prefixes(8, 2, 400, 16, 64), Engine(settings, depth=1))
    assert figures.preemptions < 16, "fewer than there are requests"


def test_who_is_owed_a_row_and_cannot_start_holds_nobody_up() -> None:
    """The next to start turns out to wait for what is being computed: that goes on all the same."""
    h = house(depth=2, max_step_tokens=16)
    prompt = list(range(40))
    h.cache.register(pack(prompt))
    for tenant in ("loud", "quiet"):
        assert h.submit(h.new(pack([*prompt, 7]), 4, tenant=tenant)) == ""
        if tenant == "loud":
            h.launch()
    h.scheduler._planner._owed = h.scheduler.fairness.tenants["quiet"]
    assert h.launch(), "the prompt that runs goes on"
    h.drain()
    assert h.scheduler.load().preemptions == 0
