"""Wide tiles computed by specialised warps: one group fetches, two multiply. Not what the engine uses."""

from benchmarks.gpu.attention import specialised_cases, timed
from benchmarks.gpu.cases import dry
from benchmarks.gpu.correctness import SPECIALISED_CASES, check
from benchmarks.gpu.stage import Bench


def run(bench: Bench) -> None:
    """Right, and how fast."""
    check(bench, "specialised", SPECIALISED_CASES[:: bench.pick(1, 2)])
    for case in specialised_cases()[:: bench.pick(1, 3)]:
        took = timed(case, bench)
        bench.table.share("", case.name, took, dry(case, bench).flop(), "matmul")
