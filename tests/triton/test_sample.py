"""The sampler in Triton's interpreter returns the reference's tokens, bit by bit."""

import pytest
import torch

from kernels.reference import sample as reference
from kernels.reference.sample import LogitBias, Penalties
from kernels.triton import penalties
from kernels.triton import sample as under_test

GREEDY, PLAIN = (0.0, 0, 1.0), (0.8, 0, 1.0)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several chunks and groups in a small vocabulary."""
    monkeypatch.setattr(under_test, "BLOCK", 256)
    monkeypatch.setattr(penalties, "BLOCK", 256)
    monkeypatch.setattr(under_test, "GROUP", 16)
    monkeypatch.setattr(under_test, "FEW", 32)
    monkeypatch.setattr(under_test, "REGISTERS", 128)
    monkeypatch.setattr(under_test, "CAPACITY", 512)


def arguments(settings, generator):
    """Arguments after the logits for rows of (temperature, top_k, top_p)."""
    temperature, top_k, top_p = zip(*settings, strict=True) if settings else ((), (), ())
    rows = len(settings)
    return {
        "temperature": torch.tensor(temperature, dtype=torch.float32),
        "top_k": torch.tensor(top_k, dtype=torch.int64),
        "top_p": torch.tensor(top_p, dtype=torch.float32),
        "seed": torch.randint(-(2**62), 2**62, (rows,), generator=generator),
        "position": torch.randint(0, 2**40, (rows,), generator=generator),
    }


def check(logits, settings, generator, **options):
    """Both implementations draw the same."""
    given = arguments(settings, generator)
    drawn = under_test.sample(logits, **given, **options)
    assert drawn.tolist() == reference.sample(logits.float(), **given, **options).tolist()


@pytest.mark.parametrize(
    "settings",
    [
        [],
        [GREEDY, PLAIN, (1e-30, 0, 1.0), (1e30, 0, 1.0)],
        [(1.0, 1, 1.0), (1.0, 40, 1.0), (2.0, 599, 1.0), (1.0, 600, 1.0), (1.0, 10**6, 1.0)],
        [(0.7, 0, 0.9), (1.0, 0, 0.0), (1.0, 0, 0.999999), (3.0, 0, 0.5)],
        [(0.7, 50, 0.9), (1.0, 1, 0.5), (1.5, 300, 0.95), (1.0, 18, 0.7)],
        [(1.0, 2, 1.0), (1.0, 18, 1.0), (1.0, 19, 1.0), (1e-3, 18, 0.9)],
    ],
)
def test_draws_as_the_reference(settings) -> None:
    generator = torch.Generator().manual_seed(1)
    check(torch.randn(len(settings), 600, generator=generator) * 3, settings, generator)


@pytest.mark.parametrize("setting", [(1.0, 200, 1.0), (1.0, 0, 0.6), (1.0, 300, 0.5)])
@pytest.mark.parametrize("capacity", [200, 512])
def test_many_tokens_in_the_bracket(setting, capacity, monkeypatch) -> None:
    """All 400 tokens are in one bin of the histogram."""
    monkeypatch.setattr(under_test, "CAPACITY", capacity)
    generator = torch.Generator().manual_seed(2)
    check(torch.rand(1, 400, generator=generator) / 100, [setting], generator)


def test_equal_logits_and_far_ones() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randint(-3, 1, (4, 300), generator=generator).float()
    logits[2:, 5:] -= 100
    settings = [(1.0, 20, 1.0), (1.0, 0, 0.7), (1.0, 40, 1.0), (1.0, 0, 0.99)]
    check(logits, settings, generator)
    check(torch.zeros(2, 1), [PLAIN, (1.0, 3, 0.5)], generator)


def test_min_p_and_bitmask() -> None:
    generator = torch.Generator().manual_seed(4)
    settings = [GREEDY, PLAIN, (1.0, 30, 1.0), (1.0, 0, 0.8), (1.0, 290, 0.9)]
    logits = torch.randn(5, 300, generator=generator) * 2
    mask = torch.randint(-(2**31), 2**31, (5, 10), generator=generator).int()
    min_p = torch.tensor([0.1, 0.05, 0.02, 0.1, 0.01])
    check(logits, settings, generator, min_p=min_p, bitmask=mask)
    check(logits, settings, generator, min_p=min_p)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_penalties", [False, True])
def test_bias_and_penalties(with_bias, with_penalties) -> None:
    generator = torch.Generator().manual_seed(5)
    rows, vocab = 4, 300
    logits = torch.randn(rows, vocab, generator=generator) * 2
    history = torch.randint(0, 6, (3, vocab), generator=generator).to(torch.int16)
    options = {}
    if with_penalties:
        options["penalties"] = Penalties(
            history,
            torch.tensor([2, 0, 1, 2]),
            torch.tensor([1.3, 0.8, 1.0, 2.0]),
            torch.tensor([0.0, 0.5, -0.5, 0.1]),
            torch.tensor([0.0, 0.2, 0.7, -0.3]),
        )
    if with_bias:
        tokens = torch.tensor([[3, 299, -1], [-1, -1, -1], [0, 1, 2], [7, -1, 8]])
        options["logit_bias"] = LogitBias(tokens, torch.randn(rows, 3, generator=generator) * 5)
    kept = logits.clone()
    adjusted = penalties.adjusted(logits, options.get("penalties"), options.get("logit_bias"))
    expected = reference.adjusted(logits, options.get("penalties"), options.get("logit_bias"), None)
    assert torch.equal(adjusted, expected)
    check(logits, [GREEDY, PLAIN, (1.0, 20, 0.9), (0.5, 0, 0.9)], generator, **options)
    assert torch.equal(logits, kept)


def test_count_tokens() -> None:
    history = torch.ones(3, 20, dtype=torch.int16)
    slot, tokens = torch.tensor([2, 0, 2, 2, 1, 2]), torch.tensor([7, 7, 7, 19, -1, 7])
    expected = history.clone()
    reference.count_tokens(expected, slot, tokens)
    penalties.count_tokens(history, slot, tokens)
    assert torch.equal(history, expected)
    assert history.sum() == 60 + 2 * 5
    penalties.count_tokens(history, slot[:0], tokens[:0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_gives_a_token() -> None:
    logits = torch.full((3, 300), float("nan"))
    drawn = under_test.sample(logits, **arguments([GREEDY, PLAIN, (1.0, 5, 0.9)], torch.Generator()))
    assert bool(((drawn >= 0) & (drawn < 300)).all())


def test_strided_half_precision_logits() -> None:
    generator = torch.Generator().manual_seed(6)
    logits = (torch.randn(3, 320, generator=generator) * 2).half()[:, :290]
    check(logits, [GREEDY, PLAIN, (1.0, 20, 0.9)], generator)


def test_distribution_for_verification() -> None:
    """The cut and the total weight of every row."""
    generator = torch.Generator().manual_seed(7)
    settings = [PLAIN, (0.7, 30, 1.0), (1.0, 0, 0.8), (1.0, 50, 0.9)]
    logits = torch.randn(4, 300, generator=generator) * 2
    given = arguments(settings, generator)
    min_p = torch.tensor([0.0, 0.01, 0.0, 0.02])
    expected, weights = reference.draw_with_distribution(logits, **given, min_p=min_p)
    drawn = under_test.draw(logits, *given.values(), min_p, None, with_totals=True)
    assert torch.equal(drawn.token, expected.token)
    assert torch.equal(drawn.total, expected.total)
    scaled = reference.scale(logits, given["temperature"], min_p)
    kept = scaled >= -drawn.cut.view(torch.float32)[:, None]
    assert torch.equal(kept & (weights > 0), weights > 0)
    assert torch.equal(torch.where(kept, reference.weight(scaled), 0), weights)
