"""The order of a step's rows: whoever shares pages stands together, else nothing is read once for all."""

from backend.engine.batch import BlockTables, in_tree_order
from kernels.prefix_runs import PrefixRun, prefix_runs
from scheduler.plan import Chunk
from tests.engine.driver import encode

PAGE = 4


def test_requests_that_come_mixed_are_sorted_and_share_their_runs() -> None:
    tables = BlockTables(slots=6, pages_per_slot=3)
    # Two families of three, their members alternating.
    for slot in range(6):
        tables.append(slot, [slot % 2, 10 + slot])
    chunks = [
        Chunk(slot, slot, start=PAGE + 1, tokens=encode([1]), emits=True, new_pages=[], held=0) for slot in range(6)
    ]
    order = in_tree_order(chunks, tables)
    assert sorted(order) == list(range(6))
    families = [chunks[place].slot % 2 for place in order]
    assert families in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    slots = [chunks[place].slot for place in order]
    starts = [chunks[place].start for place in order]
    assert prefix_runs(starts, tables.pages[slots], PAGE) == [PrefixRun(0, 3, 0, PAGE), PrefixRun(3, 3, 0, PAGE)]
