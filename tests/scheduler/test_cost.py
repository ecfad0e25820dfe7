"""The cost model: its inverse, and that it is learned from the steps of an engine."""

import random

import pytest

from scheduler.chunking import TimeBudget, TokenBudget, WholePrompts
from scheduler.cost import CostModel, OnlineFit, attended_of, read_of

CPU = CostModel(a=0.01, b=5e-4, c=1e-6, d=2e-7)


def chunk_seconds(model: CostModel, count: int, start: int) -> float:
    return model.seconds(count, read_of(start, count), attended_of(start, count)) - model.a


@pytest.mark.parametrize("model", [CPU, CostModel(0.008, 6e-5, 6e-8, 0.0), CostModel(0, 1e-4, 0, 1e-8)])
@pytest.mark.parametrize("start", [0, 100, 8000])
@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.4])
def test_the_largest_chunk_fits_and_one_more_token_does_not(model: CostModel, start: int, seconds: float) -> None:
    count = model.largest_chunk(seconds, start)
    assert count >= 0
    if count > 1:
        assert chunk_seconds(model, count, start) <= seconds * (1 + 1e-9)
    assert chunk_seconds(model, max(count + 2, 2), start) > seconds


def test_no_time_no_tokens() -> None:
    assert CPU.largest_chunk(-1.0, 10) == 0
    assert CPU.largest_chunk(1e-4, 1000) == 0, "reading the context alone takes longer"


def learn(true: CostModel, steps: int, seed: int, noise: float = 0.05, prior: CostModel | None = None) -> OnlineFit:
    """Steps as an engine has them: some rows decode, in every third step a chunk of a prompt is computed."""
    chance = random.Random(seed)
    fit = OnlineFit(prior)
    for step in range(steps):
        rows = chance.randrange(1, 32)
        read = rows * chance.randrange(50, 2000)
        new, attended = rows, 0.0
        if step % 3 == 0:
            count, start = chance.randrange(2, 512), chance.randrange(0, 4000)
            new, read, attended = new + count, read + read_of(start, count), attended_of(start, count)
        fit.observe(true.seconds(new, read, attended) * chance.uniform(1 - noise, 1 + noise), new, read, attended)
    return fit


@pytest.mark.parametrize("seed", range(4))
def test_it_learns_what_steps_take(seed: int) -> None:
    model = learn(CPU, 300, seed).model
    for new, start in ((1, 500), (256, 0), (512, 3000)):
        true, fitted = (m.seconds(new, read_of(start, new), attended_of(start, new)) for m in (CPU, model))
        assert fitted == pytest.approx(true, rel=0.15)


def test_it_follows_when_the_machine_changes_and_forgives_a_hiccup() -> None:
    fit = learn(CPU, 200, 1)
    before = fit.model.seconds(64, 5000)
    fit.observe(30.0, 64, 5000, 0.0)
    assert fit.model.seconds(64, 5000) < 2 * before
    slower = CostModel(CPU.a * 2, CPU.b * 2, CPU.c * 2, CPU.d * 2)
    chance = random.Random(5)
    for _ in range(1500):
        rows = chance.randrange(1, 100)
        read = rows * chance.randrange(50, 500)
        fit.observe(slower.seconds(rows, read), rows, read, 0.0)
    assert fit.model.seconds(64, 5000) == pytest.approx(slower.seconds(64, 5000), rel=0.1)


def test_it_is_ready_with_a_prior_or_after_some_steps() -> None:
    assert OnlineFit(CPU).ready and not OnlineFit().ready
    assert learn(CPU, 8, 0).ready
    assert OnlineFit(CPU).model == CPU


def test_nothing_it_fits_is_negative() -> None:
    for seed in range(20):
        model = learn(CPU, 12, seed, noise=0.9).model
        assert min(model.a, model.b, model.c, model.d) >= 0


# ---------------------------------------------------------------------- budgets


def test_a_time_budget_keeps_a_step_with_decodes_within_the_aim() -> None:
    budget = TimeBudget(512, 0.1, 16)
    budget.open(CPU, True)
    budget.charge(8, 4000)
    first = budget.grant(400, 1000)
    budget.take(first, 1000)
    assert CPU.seconds(8, 4000) + chunk_seconds(CPU, first, 1000) <= 0.1 < 0.1 + 1e-3
    assert CPU.seconds(8, 4000) + chunk_seconds(CPU, first + 2, 1000) > 0.1
    assert budget.spent, "what was cut for lack of time leaves none"
    assert budget.grant(50, 0) == 0


def test_two_short_chunks_share_the_time() -> None:
    budget = TimeBudget(512, 0.1, 16)
    budget.open(CPU, True)
    budget.charge(1, 10)
    total = 0.0
    for _ in range(40):
        count = budget.grant(20, 0)
        if not count:
            break
        budget.take(count, 0)
        total += chunk_seconds(CPU, count, 0)
    assert 0.07 < CPU.seconds(1, 10) + total <= 0.1


def test_without_decodes_the_step_is_as_large_as_it_may_be() -> None:
    budget = TimeBudget(512, 0.001, 16)
    budget.open(CPU, True)
    assert budget.grant(9999, 0) == 512


def test_prompts_go_on_slowly_rather_than_not_at_all() -> None:
    budget = TimeBudget(512, 0.001, 16)
    budget.open(CPU, True)
    budget.charge(32, 100_000)
    assert budget.grant(400, 0) == 16
    budget.take(16, 0)
    assert budget.grant(400, 0) == 0 and budget.spent


def test_before_anything_is_known_chunks_are_small() -> None:
    budget = TimeBudget(512, 0.1, 16)
    budget.open(CostModel(), False)
    budget.charge(3, 100)
    assert budget.grant(400, 0) == 64


@pytest.mark.parametrize(("budget", "first", "second"), [(TokenBudget(64), 60, 0), (WholePrompts(64), 400, 300)])
def test_budgets_of_tokens(budget: TokenBudget, first: int, second: int) -> None:
    budget.open(CPU, True)
    budget.charge(4, 100)
    assert budget.grant(400, 0) == first
    budget.take(first, 0)
    assert budget.spent
    assert budget.grant(300, 0) == second
