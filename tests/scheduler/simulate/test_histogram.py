"""Percentiles: exact for lists, within half a percent for histograms."""

import random

import pytest

from scheduler.simulate.histogram import Histogram, percentile


def test_percentile_of_a_list_is_the_nearest_rank() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert percentile([float(value) for value in range(1, 101)], 0.99) == 99.0
    assert percentile([7.0], 0.0) == percentile([7.0], 1.0) == 7.0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_a_histogram_is_within_half_a_percent(share: float) -> None:
    chance = random.Random(1)
    values = [chance.lognormvariate(-4, 2) for _ in range(20_000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.percentile(share) == pytest.approx(percentile(sorted(values), share), rel=0.005)
    assert histogram.max == max(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values))


def test_counts_and_zeros() -> None:
    histogram = Histogram()
    assert (histogram.percentile(0.5), histogram.mean) == (0.0, 0.0)
    histogram.add(0.0, 50)
    histogram.add(2.0, 49)
    histogram.add(8.0)
    assert histogram.count == 100
    assert histogram.percentile(0.5) == 0.0
    assert histogram.percentile(0.51) == histogram.percentile(0.99) == pytest.approx(2.0, rel=0.005)
    assert histogram.percentile(1.0) == 8.0
