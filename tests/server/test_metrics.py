"""Our histogram says what the library's says."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as LibraryHistogram

from backend.server.metrics import Histogram

BOUNDS = (0.001, 0.5, 1, 2.5, 10)


@given(st.lists(st.sampled_from([0.0, *BOUNDS]) | st.floats(0, 100), max_size=30))
def test_it_counts_as_the_librarys(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram("seconds", "How long", BOUNDS)
    ours.register(mine)
    library = LibraryHistogram("banyan:seconds", "How long", buckets=BOUNDS, registry=theirs)
    for value in values:
        mine.observe(value)
        library.observe(value)
    expected = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == expected
