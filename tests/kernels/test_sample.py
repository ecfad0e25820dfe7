"""Draws: greedy, cuts, distribution, and that a row's draw is a function of its own arguments."""

import math

import numpy as np
import pytest
import torch

from kernels.reference.noise import exponential, gumbel, log, weight
from kernels.sample import LogitBias, Penalties, count_tokens, sample


def draw(logits, temperature=1.0, top_k=0, top_p=1.0, seed=0, position=0, min_p=None, **options):
    """``sample`` with scalars or lists for each row."""
    rows = len(logits)

    def column(value, dtype):
        return torch.tensor(value if isinstance(value, list) else [value] * rows, dtype=dtype)

    return sample(
        logits,
        column(temperature, torch.float32),
        column(top_k, torch.int64),
        column(top_p, torch.float32),
        column(seed, torch.int64),
        column(position, torch.int64),
        min_p=None if min_p is None else column(min_p, torch.float32),
        **options,
    )


def kept_set(row, temperature, top_k, top_p):
    """Which ids may be drawn, by sorting in float64."""
    scaled = row.double().numpy() / temperature
    order = np.argsort(-scaled, kind="stable")
    if 0 < top_k < len(order):
        order = order[:top_k]
    mass = np.exp(scaled[order] - scaled.max())
    before = np.cumsum(mass) - mass
    return set(order[: max(1, int((before < top_p * mass.sum()).sum()))].tolist()) if top_p < 1 else set(order.tolist())


def test_greedy_takes_the_first_of_the_largest() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0], [5.0, 1.0, 5.0]])
    assert draw(logits, temperature=0.0, top_k=2, top_p=0.1).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(1, 1.0), (5, 1.0), (0, 0.5), (0, 0.0), (20, 0.9), (3000, 1.0), (2000, 0.7), (0, 0.999)]
)
@pytest.mark.parametrize("vocab", [17, 5000])
@pytest.mark.parametrize("spread", [0.05, 3.0])
def test_only_kept_tokens_are_drawn(top_k, top_p, vocab, spread) -> None:
    row = torch.randn(vocab, generator=torch.Generator().manual_seed(1)) * spread
    allowed = kept_set(row, 0.7, top_k, top_p)
    drawn = draw(row.repeat(200, 1), 0.7, top_k, top_p, seed=3, position=list(range(200))).tolist()
    assert set(drawn) <= allowed
    if len(allowed) < 8:
        assert set(drawn) == allowed


def test_distribution() -> None:
    """Chi-square of 20,000 draws against softmax; 99.9 % quantile for 7 degrees of freedom is 24.3."""
    row = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, 0.1, 1.7, -0.3])
    n = 20_000
    drawn = draw(row.repeat(n, 1), 0.8, seed=[i // 100 for i in range(n)], position=[i % 100 for i in range(n)])
    expected = (row / 0.8).softmax(0) * n
    observed = torch.bincount(drawn, minlength=8)
    assert float(((observed - expected) ** 2 / expected).sum()) < 24.3


def test_noise_is_gumbel_and_keyed() -> None:
    noise = gumbel(torch.arange(50), torch.arange(50) * 7, 2000).double()
    assert abs(float(noise.mean()) - 0.5772) < 0.02
    assert abs(float(noise.var()) - math.pi**2 / 6) < 0.05
    assert bool(noise.isfinite().all())
    rows = torch.corrcoef(noise)
    assert float((rows - torch.eye(50)).abs().max()) < 0.12
    base = gumbel(torch.tensor([5]), torch.tensor([9]), 100)
    for seed, position in ((6, 9), (5, 10), (9, 5), (-5, 9), (5 + 2**40, 9)):
        assert not torch.equal(gumbel(torch.tensor([seed]), torch.tensor([position]), 100), base)
    # A token's noise does not depend on the size of the vocabulary.
    assert torch.equal(gumbel(torch.tensor([5]), torch.tensor([9]), 37), base[:, :37])


def test_row_is_the_same_in_any_company() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(40, 3000, generator=generator) * torch.rand(40, 1, generator=generator) * 4
    settings = {
        "temperature": [(0.0, 0.3, 1.0, 5.0)[i % 4] for i in range(40)],
        "top_k": [(0, 1, 7, 50, 2500)[i % 5] for i in range(40)],
        "top_p": [(1.0, 0.9, 0.2)[i % 3] for i in range(40)],
        "seed": [i * 977 - 20_000 for i in range(40)],
        "position": [i % 11 for i in range(40)],
    }
    together = draw(logits, **settings).tolist()
    alone = [int(draw(logits[i : i + 1], **{key: [value[i]] for key, value in settings.items()})) for i in range(40)]
    assert together == alone


def test_extreme_arguments() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0, -4.0]])
    assert draw(logits, temperature=1e-30).tolist() == [2]
    assert 0 <= int(draw(logits * 1e30, temperature=1e30, seed=2**63 - 1, position=2**62)) < 4
    assert draw(torch.zeros(1, 1), top_p=0.5).tolist() == [0]


def test_elementary_functions() -> None:
    x = torch.cat([torch.rand(20_000).pow(8).clamp(min=2.0**-32), torch.tensor([2.0**-32, 1 - 2.0**-24, 0.0625])])
    exact = -torch.log1p(-x.double())
    assert float(((exponential(x) - exact) / exact).abs().max()) < 2e-6
    assert float((log(x) - x.double().log()).abs().max()) < 2e-6
    below = -torch.rand(20_000) * 45
    assert float((weight(below) - below.double().exp() * 2**40).abs().max()) < 2**40 * 2e-7
    assert weight(torch.tensor([0.0, -30.0, -1e30, float("-inf")])).tolist() == [2**40, 0, 0, 0]


@pytest.mark.parametrize("min_p", [0.0, 0.02, 0.3, 1.0])
def test_min_p_keeps_tokens_near_the_most_probable(min_p) -> None:
    row = torch.randn(60, generator=torch.Generator().manual_seed(6)) * 2
    probability = (row / 0.7).softmax(0)
    allowed = set(torch.nonzero(probability >= min_p * probability.max())[:, 0].tolist())
    drawn = draw(row.repeat(600, 1), 0.7, min_p=min_p, position=list(range(600))).tolist()
    assert set(drawn) <= allowed
    assert len(allowed) > 8 or set(drawn) == allowed


def test_top_p_is_of_what_min_p_and_top_k_leave() -> None:
    """Probabilities 0.4, 0.3, 0.2, 0.1. After top_k = 2 they are 4/7 and 3/7; after min_p = 0.4, 4/9, 3/9 and 2/9."""
    row = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().repeat(300, 1)
    places = list(range(300))

    def drawn(**settings):
        return set(draw(row, position=places, **settings).tolist())

    assert drawn(top_p=0.55) == {0, 1}
    assert drawn(top_p=0.55, top_k=2) == {0}
    assert drawn(top_p=0.95) == {0, 1, 2, 3}
    assert drawn(top_p=0.95, min_p=0.4) == {0, 1, 2}
    assert drawn(top_p=0.75, min_p=0.4) == {0, 1}
    # Equals of the last kept are kept: all four are equally probable here.
    assert set(draw(torch.zeros(300, 4), top_p=0.3, position=places).tolist()) == {0, 1, 2, 3}
    assert set(draw(torch.zeros(300, 4), top_k=2, position=places).tolist()) == {0, 1, 2, 3}


def penalties(history, slot, repetition=1.0, presence=0.0, frequency=0.0):
    """The same penalties for all rows."""
    values = (torch.full((len(slot),), value) for value in (repetition, presence, frequency))
    return Penalties(history, torch.tensor(slot), *values)


def test_penalties() -> None:
    """Token 0 is in the prompt, 1 was generated twice, 2 is both and generated once, 3 is new."""
    history = torch.zeros(3, 4, dtype=torch.int16)
    history[2] = torch.tensor([1, 0, 1, 0])
    count_tokens(history, torch.tensor([2, 2, 2, 1]), torch.tensor([1, 1, 2, -1]))
    assert history.tolist() == [[0] * 4, [0] * 4, [1, 4, 3, 0]]

    def largest(logits, **values):
        return int(draw(torch.tensor([logits]), temperature=0.0, penalties=penalties(history, [2], **values)))

    # Positive logits are divided, negative ones multiplied; prompt and generated alike.
    assert largest([2.0, 2.0, 2.0, 1.1], repetition=2.0) == 3
    assert largest([2.0, 2.0, 2.0, 0.9], repetition=2.0) == 0
    assert largest([-1.0, -1.0, -1.0, -1.9], repetition=2.0) == 3
    # Generated tokens only: once, or for each time.
    assert largest([1.0, 1.5, 1.4, 0.9], presence=0.6) == 0
    assert largest([0.0, 2.0, 1.7, 0.9], frequency=0.5) == 2
    assert largest([0.0, 2.0, 1.7, 0.9], frequency=1.0) == 3
    # Another slot has no history.
    free = penalties(history, [0], repetition=2.0, presence=2.0, frequency=2.0)
    assert int(draw(torch.tensor([[0.0, 2.0, 1.7, 0.9]]), temperature=0.0, penalties=free)) == 1


def test_logit_bias_goes_before_penalties() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    bias = LogitBias(torch.tensor([[0, -1], [2, 1]]), torch.tensor([[5.0, 9.0], [-100.0, 1.0]]))
    kept = logits.clone()
    assert draw(logits, temperature=0.0, logit_bias=bias).tolist() == [0, 1]
    assert torch.equal(logits, kept)
    # (1 + 5) / 4 < 3, but 1 / 4 + 5 > 3
    history = torch.tensor([[1, 0, 0]], dtype=torch.int16)
    both = {"logit_bias": bias, "penalties": penalties(history, [0, 0], repetition=4.0)}
    assert draw(logits, temperature=0.0, **both).tolist() == [2, 1]


def test_bitmask() -> None:
    logits = torch.randn(400, 70, generator=torch.Generator().manual_seed(7))
    allowed = [3, 31, 32, 69]
    mask = torch.zeros(400, 3, dtype=torch.int64)
    for token in allowed:
        mask[:, token // 32] |= 1 << token % 32
    mask = torch.where(mask >= 2**31, mask - 2**32, mask).int()
    drawn = draw(logits, position=list(range(400)), bitmask=mask)
    assert sorted(set(drawn.tolist())) == allowed
    greedy = draw(logits, temperature=0.0, bitmask=mask)
    assert torch.equal(greedy, torch.tensor(allowed)[logits[:, allowed].argmax(-1)])
    every = torch.full_like(mask, -1)
    assert torch.equal(draw(logits, top_p=0.9, bitmask=every), draw(logits, top_p=0.9))
