"""Draws: greedy, cuts, distribution, and that a row's draw is a function of its own arguments."""

import math

import numpy as np
import pytest
import torch

from kernels.reference.sample import gumbel
from kernels.sample import sample


def draw(logits, temperature=1.0, top_k=0, top_p=1.0, seed=0, position=0):
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
