"""Settings by slot: taken over, checked, and drawn with."""

import numpy as np
import pytest
import torch

from backend.engine.sampling import SlotSampling
from scheduler.plan import Sampling


@pytest.mark.parametrize(
    ("sampling", "word"),
    [
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(temperature=-1.0), "temperature"),
        (Sampling(temperature=float("inf")), "temperature"),
        (Sampling(top_p=1.5), "top_p"),
        (Sampling(top_p=float("nan")), "top_p"),
        (Sampling(top_k=-1), "top_k"),
    ],
)
def test_wrong_settings_are_named(sampling, word) -> None:
    assert word in SlotSampling(2).set(1, sampling)


def test_a_slot_draws_with_its_own_settings() -> None:
    slots = SlotSampling(4)
    assert slots.set(2, Sampling(temperature=0.0)) == ""
    assert slots.set(3, Sampling(temperature=50.0, seed=2**64 - 1, top_k=2**62)) == ""
    logits = torch.randn(1, 1000)
    rows = logits.repeat(20, 1)
    greedy = slots.draw(rows, np.full(20, 2), np.arange(20))
    assert set(greedy.tolist()) == {int(logits.argmax())}
    hot = slots.draw(rows, np.full(20, 3), np.arange(20))
    assert len(set(hot.tolist())) > 10
    assert slots.draw(rows[:1], np.array([3]), np.array([7])).tolist() == [hot[7]]


def test_any_integer_is_a_seed() -> None:
    slots = SlotSampling(2)
    logits = torch.zeros(1, 50_000)
    drawn = []
    for seed in (-1, 2**64 - 1, 0, 2**64, 12345):
        assert slots.set(0, Sampling(seed=seed)) == ""
        drawn.append(int(slots.draw(logits, np.array([0]), np.array([4]))[0]))
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3] and len(set(drawn)) == 3
