"""Random steps over shared pages, for the tests of the plan and of the attention that follows it."""

import numpy as np
from hypothesis import strategies as st

from kernels.prefix_runs import tree_order


@st.composite
def forests(draw):
    """Requests over a random forest of pages, in tree order: counts, starts, tables, page size."""
    page_size = draw(st.sampled_from([16, 64]))
    requests = draw(st.integers(1, 10))
    paths: list[list[int]] = []
    fresh = iter(range(1, 10_000))
    counts, starts = [], []
    for _ in range(requests):
        if paths and draw(st.booleans()):
            above = draw(st.sampled_from(paths))
            path = above[: draw(st.integers(0, len(above)))]
        else:
            path = []
        shared = len(path)
        path = path + [next(fresh) for _ in range(draw(st.integers(0, 6)))]
        count = draw(st.sampled_from([0, 1, 1, 1, 1, 3, 17, 70]))
        whole = len(path) * page_size
        # The new tokens begin behind what is shared.
        start = draw(st.integers(shared * page_size, max(shared * page_size, whole - count)))
        while len(path) * page_size < start + count:
            path.append(next(fresh))
        paths.append(path)
        counts.append(count)
        starts.append(start)
    width = max(1, max(map(len, paths)))
    tables = np.array([path + [0] * (width - len(path)) for path in paths], np.int32).reshape(requests, width)
    order = tree_order(tables)
    return np.array(counts)[order], np.array(starts)[order], tables[order], page_size
