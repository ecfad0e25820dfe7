"""The workload is a pure function of its shape, and has the distribution it says."""

import itertools
import random
import statistics

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.cli.bench.workload import WORDS, Shape, draw_length, draw_text, generate


def test_same_shape_same_workload() -> None:
    assert generate(Shape()) == generate(Shape())


def test_text_seed_changes_words_only() -> None:
    one, other = generate(Shape(text_seed=1)), generate(Shape(text_seed=2))
    for a, b in zip(one, other, strict=True):
        assert (a.tenant, a.arrival_s) == (b.tenant, b.arrival_s)
        assert a.system != b.system
        assert [t.max_tokens for t in a.turns] == [t.max_tokens for t in b.turns]
        assert [len(t.user.split()) for t in a.turns] == [len(t.user.split()) for t in b.turns]
        assert [t.user for t in a.turns] != [t.user for t in b.turns]


def test_tenants_share_their_system_prompt() -> None:
    conversations = generate(Shape(tenants=3, conversations=40, system_tokens=100))
    systems = {c.tenant: c.system for c in conversations}
    assert len(set(systems.values())) == len(systems) == 3
    assert all(c.system == systems[c.tenant] and len(c.system.split()) == 100 for c in conversations)


def test_lengths_are_written_for_the_tokenizer() -> None:
    conversation = generate(Shape(system_tokens=100, tokens_per_word=2.5))[0]
    assert len(conversation.system.split()) == 40


@given(st.integers(0, 10**6), st.floats(1, 500), st.floats(0, 2), st.integers(1, 100), st.integers(0, 500))
def test_length_keeps_its_bounds(seed: int, median: float, sigma: float, least: int, more: int) -> None:
    assert least <= draw_length(random.Random(seed), median, sigma, least, least + more) <= least + more


def test_lengths_are_lognormal() -> None:
    rng = random.Random(5)
    drawn = [draw_length(rng, 48, 0.9, 1, 10**6) for _ in range(20_000)]
    assert statistics.median(drawn) == pytest.approx(48, rel=0.05)
    assert statistics.quantiles(drawn, n=100)[94] == pytest.approx(48 * 2.718 ** (0.9 * 1.645), rel=0.1)


def test_poisson_arrivals() -> None:
    conversations = generate(Shape(rate=4.0, conversations=5_000, turns=1, system_tokens=1, user_min=1, user_max=1))
    arrivals = [c.arrival_s for c in conversations]
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert min(gaps) > 0
    assert statistics.mean(gaps) == pytest.approx(0.25, rel=0.1)
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.1)


def test_no_rate_all_at_once() -> None:
    assert {c.arrival_s for c in generate(Shape())} == {0.0}


def test_words_are_plain_and_different() -> None:
    assert len(set(WORDS)) == len(WORDS) > 200
    assert all(word.isascii() and word.islower() for word in WORDS)
    assert draw_text(random.Random(1), 0, 1.0) in WORDS


def test_shape_is_data() -> None:
    assert msgspec.json.decode(msgspec.json.encode(Shape(rate=2.5)), type=Shape) == Shape(rate=2.5)
