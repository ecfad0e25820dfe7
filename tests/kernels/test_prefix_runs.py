"""Runs of shared keys against a brute-force reading of the tables."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernels.prefix_runs import PrefixRun, prefix_runs, tree_order


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray]:
    """Page size, starts and tables in tree order, of a random forest of shared pages."""
    page_size = draw(st.sampled_from([1, 4, 16]))
    items = draw(st.integers(0, 9))
    width = draw(st.integers(0, 6))
    rows = np.array([[draw(st.integers(0, 1)) for _ in range(width)] for _ in range(items)], np.int32).reshape(
        items, width
    )
    # A page id says its whole prefix, as in a radix tree: equal ids only below equal ids.
    pages = np.cumsum(rows * 2 ** np.arange(width, dtype=np.int32), axis=1, dtype=np.int32)
    pages += np.arange(width, dtype=np.int32) * 1000
    starts = np.array([draw(st.integers(0, width * page_size + 3)) for _ in range(items)], np.int64)
    order = tree_order(pages)
    return page_size, starts[order], pages[order]


@given(tables())
def test_runs_are_the_shared_pages_each_once(case: tuple[int, np.ndarray, np.ndarray]) -> None:
    page_size, starts, pages = case
    covered: dict[tuple[int, int], PrefixRun] = {}
    for run in prefix_runs(starts, pages, page_size):
        assert run.count >= 2
        assert run.begin < run.end
        for item in range(run.first, run.first + run.count):
            assert run.end <= starts[item]
            assert np.array_equal(
                pages[item, run.begin // page_size : run.end // page_size],
                pages[run.first, run.begin // page_size : run.end // page_size],
            )
            for page in range(run.begin // page_size, run.end // page_size):
                assert (item, page) not in covered
                covered[item, page] = run
    # Whoever shares a page with a neighbour reads it in a run, and with every such neighbour in the same one.
    for item in range(len(starts) - 1):
        for page in range(min(starts[item], starts[item + 1]) // page_size):
            if page < pages.shape[1] and pages[item, page] == pages[item + 1, page]:
                assert covered[item, page] is covered[item + 1, page]


def test_levels_of_a_tree() -> None:
    # Four items: all share a page of 16, two of them a second one.
    pages = np.array([[0, 1, 2], [0, 1, 3], [0, 4, 5], [0, 6, 7]], np.int32)
    starts = np.array([40, 40, 40, 20])
    assert prefix_runs(starts, pages, 16) == [PrefixRun(0, 4, 0, 16), PrefixRun(0, 2, 16, 32)]


def test_runs_that_stop_and_begin_together() -> None:
    # Three share two pages, two of these a third one; the second pair begins where the first run stops.
    pages = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 3], [4, 5, 6], [4, 5, 7]], np.int32)
    starts = np.full(5, 48)
    expected = [PrefixRun(0, 3, 0, 32), PrefixRun(0, 2, 32, 48), PrefixRun(3, 2, 0, 32)]
    assert prefix_runs(starts, pages, 16) == expected
    # The same from the other end.
    expected = [PrefixRun(0, 2, 0, 32), PrefixRun(2, 3, 0, 32), PrefixRun(3, 2, 32, 48)]
    assert prefix_runs(starts, pages[::-1], 16) == expected


def test_pages_of_longer_tables_are_not_shared() -> None:
    # Equal beyond what is computed, and equal to the last column.
    pages = np.array([[0, 1, 9, 9], [0, 1, 9, 9]], np.int32)
    assert prefix_runs(np.array([32, 40]), pages, 16) == [PrefixRun(0, 2, 0, 32)]
    assert prefix_runs(np.array([64, 99]), pages, 16) == [PrefixRun(0, 2, 0, 64)]
    assert prefix_runs(np.array([15, 99]), pages, 16) == []


def test_a_page_that_the_step_writes_is_not_shared() -> None:
    pages = np.array([[0, 1], [0, 1]], np.int32)
    assert prefix_runs(np.array([31, 32]), pages, 16) == [PrefixRun(0, 2, 0, 16)]
