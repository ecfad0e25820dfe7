"""What the soak takes for a leak."""

from benchmarks.soak import Sample, grown, left

METRICS = """
banyan:num_requests_running 0.0
banyan:num_requests_waiting {waiting}
banyan:kv_pages{{state="free"}} 100.0
banyan:kv_pages{{state="private"}} 0.0
banyan:kv_pages{{state="pending"}} 0.0
"""


def sample(at: int, mib: float = 80.0, files: int = 18) -> Sample:
    return Sample(float(at), mib, 300.0, files, 4, 3, {}, 0)


def test_growth_after_the_warm_up_is_one() -> None:
    assert grown([sample(at, 90.0 if at > 30 else 50.0) for at in range(0, 120, 10)], 40) == []
    assert grown([sample(at, 50.0 + at / 10) for at in range(0, 120, 10)], 40) == ["server_mib: 54.5 then 60.5"]
    assert grown([sample(at) for at in range(0, 120, 10)], 110) != []  # too short to tell


def test_what_is_left_when_all_is_quiet_is_one() -> None:
    assert left(sample(0), sample(600), METRICS.format(waiting=0.0)) == []
    assert left(sample(0), sample(600, files=40), METRICS.format(waiting=0.0)) == ["server_files: 18 then 40"]
    assert left(sample(0), sample(600), METRICS.format(waiting=2.0)) == ["num_requests_waiting: 2.0"]
    assert left(sample(0), sample(600), "") != []  # figures that are not there
