"""Settings by slot: taken over, checked, and drawn with."""

import numpy as np
import pytest
import torch

from backend.engine.sampling import SlotSampling
from scheduler.plan import Sampling, TokenLogprobs

VOCAB = 50_000


def slots_of(count: int) -> SlotSampling:
    return SlotSampling(count, VOCAB, torch.device("cpu"))


def drawn_by(slots: SlotSampling, logits: torch.Tensor, owners: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """What is drawn; it is also what the slots drew last."""
    last = torch.full((8,), -1)
    drawn = slots.draw(logits, slots.draws(owners, positions), last)
    assert {int(last[owner]) for owner in owners} <= set(drawn.tolist())
    assert (last >= 0).sum() == len(set(owners.tolist()))
    return drawn.numpy()


def encode(*tokens: int) -> bytes:
    return np.array(tokens, "<u4").tobytes()


@pytest.mark.parametrize(
    ("sampling", "word"),
    [
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(temperature=-1.0), "temperature"),
        (Sampling(temperature=float("inf")), "temperature"),
        (Sampling(top_p=1.5), "top_p"),
        (Sampling(top_p=float("nan")), "top_p"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(min_p=1.1), "min_p"),
        (Sampling(min_p=float("nan")), "min_p"),
        (Sampling(repetition_penalty=0.0), "repetition_penalty"),
        (Sampling(repetition_penalty=float("inf")), "repetition_penalty"),
        (Sampling(presence_penalty=float("nan")), "presence_penalty"),
        (Sampling(frequency_penalty=-1e30), "frequency_penalty"),
        (Sampling(logit_bias={VOCAB: 1.0}), "logit_bias"),
        (Sampling(logit_bias={-1: 1.0}), "logit_bias"),
        (Sampling(logit_bias={1: float("nan")}), "logit_bias"),
        (Sampling(logit_bias=dict.fromkeys(range(1025), 1.0)), "logit_bias"),
        (Sampling(logprobs=21), "logprobs"),
        (Sampling(logprobs=-1), "logprobs"),
    ],
)
def test_wrong_settings_are_named(sampling, word) -> None:
    assert word in slots_of(2).set(1, sampling)


def test_a_slot_draws_with_its_own_settings() -> None:
    slots = slots_of(4)
    assert slots.set(2, Sampling(temperature=0.0)) == ""
    assert slots.set(3, Sampling(temperature=50.0, seed=2**64 - 1, top_k=2**62)) == ""
    logits = torch.randn(1, 1000)
    rows = logits.repeat(20, 1)
    greedy = drawn_by(slots, rows, np.full(20, 2), np.arange(20))
    assert set(greedy.tolist()) == {int(logits.argmax())}
    hot = drawn_by(slots, rows, np.full(20, 3), np.arange(20))
    assert len(set(hot.tolist())) > 10
    assert drawn_by(slots, rows[:1], np.array([3]), np.array([7])).tolist() == [hot[7]]


def test_any_integer_is_a_seed() -> None:
    slots = slots_of(2)
    logits = torch.zeros(1, 50_000)
    drawn = []
    for seed in (-1, 2**64 - 1, 0, 2**64, 12345):
        assert slots.set(0, Sampling(seed=seed)) == ""
        drawn.append(int(drawn_by(slots, logits, np.array([0]), np.array([4]))[0]))
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3] and len(set(drawn)) == 3


def greedy(slots: SlotSampling, slot: int, logits: torch.Tensor, position: int = 0) -> int:
    return int(drawn_by(slots, logits, np.array([slot]), np.array([position]))[0])


def test_drawn_tokens_count_at_the_next_draw_and_not_for_the_next_owner() -> None:
    slots = slots_of(3)
    logits = torch.zeros(1, VOCAB)
    logits[0, 7], logits[0, 8], logits[0, 9] = 3.0, 2.5, 2.2
    setting = Sampling(temperature=0.0, frequency_penalty=0.4)
    assert slots.set(1, setting) == ""
    # 7: 3.0 2.6 2.2 1.8 ..., 8: 2.5 2.1 ..., 9: 2.2 1.8
    assert [greedy(slots, 1, logits, n) for n in range(5)] == [7, 7, 8, 7, 9]
    assert slots.set(1, setting) == ""
    assert greedy(slots, 1, logits) == 7
    assert slots.set(1, Sampling(temperature=0.0)) == ""
    assert [greedy(slots, 1, logits, n) for n in range(4)] == [7] * 4


def test_tokens_so_far_are_given_with_the_slot() -> None:
    """As when a preempted request is resumed: the prompt counts for repetition only, output for all."""
    slots = slots_of(2)
    logits = torch.zeros(1, VOCAB)
    logits[0, 7], logits[0, 8] = 3.0, 2.9
    known = encode(7, 7, 8)
    assert slots.set(0, Sampling(temperature=0.0, presence_penalty=1.0), known, 3) == ""
    assert greedy(slots, 0, logits) == 7
    assert slots.set(0, Sampling(temperature=0.0, presence_penalty=1.0), known, 1) == ""
    logits[0, 9] = 2.5
    assert greedy(slots, 0, logits) == 9
    assert slots.set(0, Sampling(temperature=0.0, repetition_penalty=1.5), known, 3) == ""
    assert greedy(slots, 0, logits) == 9
    assert "vocabulary" in slots.set(0, Sampling(repetition_penalty=1.5), encode(VOCAB), 1)


def test_company_changes_no_draw() -> None:
    """Settings of every kind in one step: each row draws what it draws alone."""
    settings = [
        Sampling(seed=1),
        Sampling(seed=2, min_p=0.2),
        Sampling(seed=3, repetition_penalty=1.3, presence_penalty=0.5),
        Sampling(seed=4, logit_bias={5: 3.0, 6: -3.0}),
        Sampling(seed=5, temperature=0.0, frequency_penalty=1.0, logit_bias={9: 1.0}),
    ]
    generator = torch.Generator().manual_seed(1)
    steps = [3 * torch.randn(5, VOCAB, generator=generator) for _ in range(6)]
    alone, company = slots_of(5), slots_of(5)
    expected = []
    for slot, setting in enumerate(settings):
        assert alone.set(slot, setting, encode(3, 4), 1) == ""
        drawn = [greedy(alone, slot, step[slot : slot + 1], n) for n, step in enumerate(steps)]
        expected.append(drawn)
        alone.reset(slot)
    for slot, setting in enumerate(settings):
        assert company.set(slot, setting, encode(3, 4), 1) == ""
    order = np.array([3, 0, 4, 1, 2])
    drawn = np.stack([drawn_by(company, step[order], order, np.full(5, n)) for n, step in enumerate(steps)])
    assert drawn[:, np.argsort(order)].T.tolist() == expected


def test_biases_decide() -> None:
    slots = slots_of(2)
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(2))
    best = int(logits.argmax())
    assert slots.set(0, Sampling(temperature=0.0, logit_bias={best: -100.0})) == ""
    assert slots.set(1, Sampling(temperature=1.0, logit_bias={17: 100.0})) == ""
    drawn = drawn_by(slots, logits.repeat(2, 1), np.array([0, 1]), np.array([3, 3]))
    assert drawn.tolist() == [int(logits[0].topk(2).indices[1]), 17]


def test_logprobs_are_those_of_the_unchanged_logits() -> None:
    slots = slots_of(3)
    assert slots.set(0, Sampling(logit_bias={17: 100.0}, temperature=0.3, logprobs=2)) == ""
    assert slots.set(1, Sampling()) == ""
    assert slots.set(2, Sampling(temperature=0.0, logprobs=0)) == ""
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(3))
    rows = np.arange(3)
    drawn = drawn_by(slots, logits, rows, np.array([1, 1, 1]))
    found = slots.logprobs(logits, rows, drawn)
    assert list(found) == [0, 2]
    expected = logits.double().log_softmax(-1)
    assert drawn[0] == 17 and abs(found[0].logprob - float(expected[0, 17])) < 1e-5
    best = expected[0].topk(2)
    assert found[0].top_tokens == best.indices.tolist()
    assert found[0].top_logprobs == pytest.approx(best.values.tolist(), abs=1e-5)
    assert found[2] == TokenLogprobs(pytest.approx(float(expected[2].max()), abs=1e-5), [], [])
    slots.reset(0)
    slots.reset(2)
    assert not slots.reports


def test_frequencies_of_a_setting_with_everything() -> None:
    """Chi-square of 20,000 draws against the probabilities computed from the definitions; a wrong one is far off."""
    vocab, draws = 12, 20_000
    slots = SlotSampling(1, vocab, torch.device("cpu"))
    setting = Sampling(
        temperature=0.9, min_p=0.05, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.2, seed=77,
        logit_bias={4: 0.7}, top_p=0.95,
    )  # fmt: skip
    logits = torch.randn(1, vocab, generator=torch.Generator().manual_seed(5))
    known = encode(0, 1, 2, 2, 3)
    prompt = 2
    counts = np.zeros(vocab)
    for first in range(0, draws, 500):  # a slot is set anew for each draw, so that its tokens so far stay the same
        for n in range(first, first + 500):
            assert slots.set(0, setting, known, prompt) == ""
            counts[greedy(slots, 0, logits, n)] += 1
    adjusted = logits[0].double().numpy().copy()
    adjusted[4] += 0.7
    for token in (0, 1, 2, 3):
        adjusted[token] = adjusted[token] / 1.2 if adjusted[token] > 0 else adjusted[token] * 1.2
    adjusted[2] -= 0.2 * 2 + 0.3
    adjusted[3] -= 0.2 + 0.3
    p = np.exp((adjusted - adjusted.max()) / 0.9)
    p[p < 0.05] = 0  # the most probable one has 1
    order = np.argsort(-p)
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= 0.95 * p.sum()]] = 0
    p /= p.sum()
    kept = p > 0
    assert 3 < kept.sum() < vocab and counts[~kept].sum() == 0
    chi = float(((counts[kept] - draws * p[kept]) ** 2 / (draws * p[kept])).sum())
    # 99.99 % of right draws are below this for up to 11 degrees of freedom.
    assert chi < 37.4, chi
