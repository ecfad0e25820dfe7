"""What a step costs on the host: the plan of its attention."""

import time

import numpy as np

from benchmarks.gpu.attention import FOUR_LEVELS
from benchmarks.gpu.cases import Case, block_tables
from benchmarks.gpu.device import Took
from benchmarks.gpu.stage import Bench
from kernels.prefix_runs import prefix_runs, tree_order
from kernels.triton.plan import Heads, plan_items


def wall(call: object, repeats: int) -> Took:
    """Wall clock of a call on the host."""
    assert callable(call)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1e6)
    return Took.of(times)


def host(bench: Bench) -> None:
    """Order, runs and items of 256 requests: alone, over one prefix, over a tree."""
    heads = Heads(4, 8, 128)
    repeats = bench.pick(50, 2)

    def judge(name: str, case: Case) -> None:
        tables, _ = block_tables(case)
        counts, starts = np.array(case.counts), np.array(case.starts)
        runs = prefix_runs(starts, tables, case.page_size)
        items = wall(lambda: plan_items(counts, starts, runs, heads), repeats)
        found = wall(lambda: prefix_runs(starts, tables, case.page_size), repeats)
        both = wall(lambda: plan_items(counts, starts, prefix_runs(starts, tables, case.page_size), heads), repeats)
        ordered = wall(lambda: tree_order(tables), repeats)
        bench.table.at_most("T21", f"plan, {name}, us", items.us, 150.0)
        bench.table.at_most("", f"its runs and the plan, {name}, us", both.us, 150.0, detail=True)
        bench.table.at_most("", f"its runs, {name}, us", found.us, 1000.0, detail=True)
        bench.table.at_most("", f"its order, {name}, us", ordered.us, 1000.0, detail=True)

    judge("own keys", Case("", [1] * 256, [1023] * 256))
    judge("one prefix of 8k", Case("", [1] * 256, [8447] * 256, levels=((1, 8192),)))
    judge("a tree of 4 levels", Case("", [1] * 256, [3967] * 256, levels=FOUR_LEVELS))
