"""Whole runs: figures that can be computed by hand, and what the arms, the depth and a fleet must show."""

import msgspec
import pytest

from scheduler.arms import ARMS
from scheduler.chat_trace import ChatShape, chat, public_prompts
from scheduler.cost import CostModel
from scheduler.machines import H200_8B
from scheduler.settings import Settings
from scheduler.simulate.figures import Figures
from scheduler.simulate.fleet import Fleet, simulate
from scheduler.simulate.recorder import Limits
from scheduler.simulate.replica import Engine
from scheduler.simulate.routing import ROUTERS
from scheduler.trace import TracedRequest, shared_prefixes, token_block

SETTINGS = Settings(page_size=16, pages=512, max_running=8, max_step_tokens=256, max_waiting=10_000)
SECOND = CostModel(a=1.0, b=0.0, c=0.0, d=0.0)


AT_ONCE = float("inf")


def engine(
    cost: CostModel = SECOND, depth: int = 1, host_s: float = 0.0, lead_s: float = AT_ONCE, **sizes: int | str
) -> Engine:
    """Unless told otherwise steps are planned ahead as soon as that is possible."""
    return Engine(msgspec.structs.replace(SETTINGS, **sizes), cost, depth, host_s, lead_s)


# ---------------------------------------------------------------------- one engine, by hand


@pytest.mark.parametrize("depth", [1, 2])
def test_one_request_takes_what_the_cost_model_says(depth: int) -> None:
    cost = CostModel(a=1.0, b=0.1, c=0.001)
    figures = simulate([TracedRequest(5.0, token_block("x", 20), 3)], engine(cost, depth))
    prefill = 1 + 20 * 0.1 + 20 * 0.001
    gaps = [1 + 0.1 + 21 * 0.001, 1 + 0.1 + 22 * 0.001]
    assert figures.ttft_p50 == pytest.approx(prefill)
    assert figures.itl_max == pytest.approx(gaps[1])
    assert figures.tpot_p99 == pytest.approx(sum(gaps) / 2)
    assert figures.latency_per_token_p99 == pytest.approx((prefill + sum(gaps)) / 3)
    assert figures.seconds == pytest.approx(5 + prefill + sum(gaps))
    assert figures.output_per_s == pytest.approx(3 / figures.seconds)
    assert figures.busy == pytest.approx((prefill + sum(gaps)) / figures.seconds)
    assert (figures.requests, figures.rejected, figures.steps, figures.hit_rate) == (1, 0, 3, 0.0)


def test_a_shared_prefix_is_computed_once() -> None:
    trace = shared_prefixes(groups=2, prompts_per_group=8, system_tokens=64, question_tokens=8, output_tokens=4)
    figures = simulate(trace, engine())
    assert figures.computed_tokens == 2 * 64 + 16 * 8 + 16 * 3
    assert figures.hit_rate == pytest.approx(14 * 64 / (16 * 72))
    assert (figures.hits.system, figures.misses.system, figures.misses.shared) == (14 * 64, 2 * 64, 16 * 8)


def test_the_next_turn_finds_what_was_generated() -> None:
    shape = ChatShape(requests=2, tenants=1, system_tokens=40, question_tokens=8, question_sigma=0, turns=1e9)
    shape = msgspec.structs.replace(shape, output_tokens=20, output_sigma=0, max_tokens=100, think_s=1.0, rate=1.0)
    first, second = chat(shape)
    assert (len(first.prompt) // 4, len(second.prompt) // 4) == (48, 48 + 20 + 8)
    far = msgspec.structs.replace(second, arrival=1000.0)
    figures = simulate([first, far], engine())
    assert figures.hits.total == 48 + 19, "all but the last token, whose keys and values were never needed"
    assert (figures.hits.system, figures.hits.history) == (40, 27)
    assert figures.computed_tokens == 48 + 19 + (1 + 8) + 19


def test_public_prompts_are_shared_between_tenants() -> None:
    shape = ChatShape(
        requests=20, tenants=4, zipf=0, system_tokens=64, turns=1, rate=0.01, output_tokens=2, max_tokens=2
    )
    private = simulate(chat(shape), engine())
    shared = msgspec.structs.replace(shape, public_prompts=1)
    public = simulate(chat(shared), engine(), public=public_prompts(shared))
    assert private.hits.system == (20 - 4) * 64
    assert public.hits.system == 20 * 64


def test_what_cannot_fit_is_counted() -> None:
    figures = simulate([TracedRequest(0.0, token_block("x", 9000), 3)], engine())
    assert (figures.requests, figures.rejected, figures.output_per_s, figures.attainment) == (1, 1, 0.0, 0.0)


def test_goodput_counts_the_requests_within_the_limits() -> None:
    trace = [TracedRequest(0.0, token_block(str(number), 4), 3) for number in range(2)]
    figures = simulate(trace, engine(max_running=1), limits=Limits(ttft_s=2.0))
    assert (figures.seconds, figures.attainment, figures.goodput_per_s) == (6.0, 0.5, pytest.approx(1 / 6))
    assert (figures.ttft_p50, figures.ttft_p99) == (1.0, 4.0)


def test_whoever_waits_too_long_is_dropped() -> None:
    trace = [TracedRequest(0.0, token_block(str(number), 4), 10) for number in range(3)]
    patient = engine(max_running=1)
    figures = simulate(trace, msgspec.structs.replace(patient, queue_s=5.0, learns=True))
    assert (figures.requests, figures.expired, figures.attainment) == (3, 2, pytest.approx(1 / 3))


@pytest.mark.parametrize("ahead", [0, 1])
def test_empty_slots_by_hand(ahead: int) -> None:
    """Memory is looked at after steps 16, 32 and 48; by then 31, 47 and 63 tokens are in it, and one more will be after
    the step in flight when steps are planned ahead."""
    trace = [TracedRequest(0.0, token_block("x", 16), 49)]
    reserved = simulate(trace, engine(depth=1 + ahead, arm="continuous"))
    assert reserved.kv_empty == pytest.approx((33 + 17 + 1 - 3 * ahead) / (3 * 64))
    assert reserved.kv_reuse == pytest.approx((31 + 47 + 63 + 3 * ahead) / (3 * 64))
    for arm in ("paged", "shared"):
        figures = simulate(trace, engine(depth=1 + ahead, arm=arm))
        assert figures.kv_empty == pytest.approx((3 - 3 * ahead) / (32 + 48 + 64))


def test_shared_slots_count_once() -> None:
    """Eight requests on one prompt of 160 tokens attend to far more tokens than there are slots."""
    trace = list(shared_prefixes(1, 8, 160, 16, 40))
    assert simulate(trace, engine()).kv_reuse > 2.5
    assert simulate(trace, engine(arm="paged")).kv_reuse < 1.0


def test_shares_of_tenants_while_both_want_more() -> None:
    """Equal weights: equal service, however much more one of them asks for."""
    flood = [TracedRequest(0.0, token_block(f"a{number}", 16), 8, tenant="a") for number in range(90)]
    trickle = [TracedRequest(0.0, token_block(f"b{number}", 16), 8, tenant="b") for number in range(30)]
    last = TracedRequest(40.0, token_block("last", 16), 1, tenant="b")
    figures = simulate([*flood, *trickle, last], engine(quantum_tokens=1))
    shares = {tenant.tenant: tenant.share for tenant in figures.tenants}
    assert shares["a"] == pytest.approx(0.5, abs=0.1)
    waits = {tenant.tenant: tenant.ttft_p99 for tenant in figures.tenants}
    assert waits["b"] < waits["a"]


# ---------------------------------------------------------------------- overlap


@pytest.mark.parametrize(
    ("device_s", "host_s", "max_tokens", "one", "two"),
    [
        (10.0, 4.0, 20, 20 * (10 + 4), 20 * 10 + 4),
        (10.0, 4.0, 300, 20 * (10 + 4), 20 * 10 + 4),
        (2.0, 10.0, 20, 20 * (2 + 10), 20 * 10),
        (2.0, 10.0, 300, 20 * (2 + 10), 20 * 10 + 5),
        (10.0, 0.0, 300, 20 * 10, 20 * 10),
    ],
)
def test_planning_ahead_hides_the_host(device_s: float, host_s: float, max_tokens: int, one: float, two: float) -> None:
    """20 tokens of one answer, ended by its length or, unforeseen, by a stop token: a step takes host + device, or the
    longer of both (and once the shorter; where the host is the longer and the end not foreseen, half a step in vain).
    """
    cost = CostModel(device_s, 0.0, 0.0, 0.0)
    trace = [TracedRequest(0.0, token_block("x", 4), 20, max_tokens)]
    alone = simulate(trace, engine(cost, 1, host_s))
    assert alone.seconds == pytest.approx(one)
    for lead_s in (AT_ONCE, host_s):  # half of the host's time is enough, the other half comes after the step
        assert simulate(trace, engine(cost, 2, host_s, lead_s)).seconds == pytest.approx(two)


def test_planning_ahead_under_load() -> None:
    """8 rows, 64 answers of 20 tokens with unforeseen ends. An end is known when the step after it is under way, so
    each of the 8 batches but the last costs a step more: 167 of 10 s and the host once, against 160 of 10 + 4 s."""
    trace = [TracedRequest(0.0, token_block(str(number), 4), 20, 300) for number in range(64)]
    cost = CostModel(10.0, 0.0, 0.0, 0.0)
    alone = simulate(trace, engine(cost, 1, 4.0))
    ahead = simulate(trace, engine(cost, 2, 4.0))
    assert alone.seconds == pytest.approx(160 * 14)
    assert ahead.seconds == pytest.approx(167 * 10 + 4)
    assert ahead.output_per_s / alone.output_per_s == pytest.approx(2240 / 1674)
    assert ahead.busy > 0.99 > 0.75 > alone.busy


@pytest.mark.parametrize("lead_s", [AT_ONCE, 1.0])
def test_a_newcomer_is_planned_while_a_step_runs(lead_s: float) -> None:
    """With room in the pipeline the host does not wait for the step's end: the device goes on without a pause."""
    trace = [TracedRequest(0.0, token_block("a", 4), 1), TracedRequest(3.0, token_block("b", 4), 1)]
    figures = simulate(trace, engine(CostModel(10.0, 0.0, 0.0, 0.0), 2, 1.0, lead_s))
    assert figures.seconds == pytest.approx(0.5 + 10 + 10 + 0.5)


@pytest.mark.parametrize(("lead_s", "ttft"), [(AT_ONCE, 27.0), (3.0, 17.0)])
def test_planning_late_lets_newcomers_in(lead_s: float, ttft: float) -> None:
    """Steps of 10 s; somebody comes at 13 s. Step 3 was planned at 10 s already, or is planned at 17 s and has it."""
    trace = [TracedRequest(0.0, token_block("a", 4), 20), TracedRequest(13.0, token_block("b", 4), 1)]
    figures = simulate(trace, engine(CostModel(10.0, 0.0, 0.0, 0.0), 2, 0.0, lead_s))
    assert (figures.ttft_p50, figures.ttft_p99) == (10.0, pytest.approx(ttft))
    assert figures.seconds == pytest.approx(200.0)


# ---------------------------------------------------------------------- arms


def throughput(arm: str) -> Figures:
    """Answers of very different lengths, all there from the start, in memory that is scarce."""
    trace = shared_prefixes(8, 12, 256, 32, 32, output_sigma=1.0, max_tokens=256, tenants=1)
    return simulate(trace, engine(H200_8B.cost, 2, 4e-4, arm=arm, pages=400, max_running=32))


def test_each_idea_brings_throughput() -> None:
    figures = {arm: throughput(arm) for arm in ARMS}
    rates = {arm: one.output_per_s for arm, one in figures.items()}
    assert rates["static"] < rates["continuous"] <= rates["paged"] <= rates["shared"]
    assert rates["shared"] > 1.2 * rates["continuous"]
    assert figures["continuous"].kv_empty > 0.25 and figures["paged"].kv_empty < 0.05
    assert figures["shared"].kv_reuse > 1.2 > 1.0 >= figures["paged"].kv_reuse
    assert len({one.output_tokens for one in figures.values()}) == 1, "the same work"


# ---------------------------------------------------------------------- fleets


@pytest.mark.parametrize("routing", ROUTERS)
def test_each_request_is_routed_once_and_ends_once(routing: str) -> None:
    fleet = Fleet(engine(H200_8B.cost, 2, 4e-4), 5, routing)
    figures = fleet.run(shared_prefixes(10, 12, 64, 16, 8, rate=200.0))
    recorder = fleet.recorder
    assert (recorder.sent, recorder.finished, recorder.open, recorder.rejected) == (120, 120, 0, 0)
    assert sum(one.requests for one in figures.replicas) == 120
    assert all(one.traffic.requests == one.traffic.unanswered_tokens == 0 for one in fleet.replicas)
    assert figures.output_tokens == 120 * 8
    for replica in fleet.replicas:
        replica.scheduler.check()


def test_routing_by_prefix_finds_more_than_chance() -> None:
    """Each replica can hold a quarter of the prefixes."""

    def hits(routing: str) -> Figures:
        small = engine(H200_8B.cost, 2, pages=100, max_running=16)
        return simulate(shared_prefixes(16, 20, 256, 16, 16, rate=50.0), small, 4, routing)

    by_prefix, at_random, by_tenant = hits("prefix"), hits("random"), hits("tenant")
    assert by_prefix.hit_rate > at_random.hit_rate + 0.2
    assert by_tenant.hit_rate > at_random.hit_rate + 0.2
    assert by_prefix.ttft_p50 < at_random.ttft_p50


def test_more_replicas_are_faster() -> None:
    def ttft(replicas: int) -> float:
        trace = shared_prefixes(8, 20, 128, 16, 32, rate=100.0)
        return simulate(trace, engine(H200_8B.cost), replicas, "least-loaded").ttft_p99

    assert ttft(16) < ttft(4) < ttft(1)


def test_one_replica_is_an_engine() -> None:
    trace = list(shared_prefixes(4, 4, 64, 16, 8, rate=50.0))
    assert simulate(trace, engine(H200_8B.cost)) == simulate(trace, engine(H200_8B.cost), 1, "prefix")


@pytest.mark.parametrize(("replicas", "routing"), [(0, "random"), (2, "nearest")])
def test_wrong_fleets_are_refused(replicas: int, routing: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Fleet(engine(), replicas, routing)
