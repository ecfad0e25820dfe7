"""The estimate of what cached tokens would have cost."""

import pytest

from backend.server.prefill_rate import PrefillRate


def test_nothing_is_said_before_something_was_measured() -> None:
    rate = PrefillRate()
    rate.add(17, 13.0)
    rate.add(600, 0.0)
    assert rate.saved_ms(1000) is None


def test_short_prefills_do_not_spoil_the_estimate() -> None:
    """A follow-up computes a few tokens at the fixed cost of a step; that says nothing about a long prompt."""
    rate = PrefillRate()
    rate.add(634, 139.0)
    for _ in range(20):
        rate.add(17, 13.0)
    assert rate.saved_ms(634) == pytest.approx(139.0)


def test_it_follows_the_machine() -> None:
    rate = PrefillRate()
    rate.add(1000, 100.0)
    for _ in range(40):
        rate.add(1000, 300.0)
    saved = rate.saved_ms(1000)
    assert saved is not None
    assert 290 < saved <= 300
