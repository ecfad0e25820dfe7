"""What counts as good, and what a router gets to know, on progress made by hand."""

import pytest

from scheduler.plan import Opened, Progress, Sampling
from scheduler.simulate.recorder import Limits, Recorder, SimulationError, Traffic
from scheduler.trace import TracedRequest


def played(limits: Limits, times: list[float], arrival: float = 0.0) -> Recorder:
    """A recorder that has seen one request get a token at each of ``times``."""
    recorder = Recorder(limits, 2.0)
    recorder.send(1, TracedRequest(arrival, bytes(40), len(times), tenant="a"), Traffic())
    recorder.opened([Opened(0, 1, Sampling(), 4)])
    before = 0.0
    for number, now in enumerate(times, 1):
        finish = "stop" if number == len(times) else ""
        assert recorder.take([Progress(1, [0], finish)], before, now) == ([1] if finish else [])
        before = now
    return recorder


def test_times_of_one_request() -> None:
    recorder = played(Limits(), [3.0, 4.0, 7.0], arrival=1.0)
    assert list(recorder.ttft) == [2.0]
    assert recorder.tpot.mean == 2.0
    assert (recorder.itl.count, recorder.itl.total, recorder.itl.max) == (2, 4.0, 3.0)
    assert recorder.latency_per_token.mean == 2.0
    assert (recorder.finished, recorder.good, recorder.open, recorder.last_end) == (1, 1, 0, 7.0)
    assert recorder.tenants["a"].service == 10 - 4 + 2.0 * 3


@pytest.mark.parametrize(
    ("limits", "good"),
    [
        (Limits(ttft_s=3.0, tpot_s=2.0, itl_s=3.0), 1),
        (Limits(ttft_s=2.9), 0),
        (Limits(tpot_s=1.9), 0),
        (Limits(itl_s=2.9), 0),
    ],
)
def test_a_good_request_keeps_every_limit(limits: Limits, good: int) -> None:
    assert played(limits, [3.0, 4.0, 7.0]).good == good


@pytest.mark.parametrize(("late", "good"), [(1, 1), (2, 0)])
def test_one_gap_in_a_hundred_may_be_late(late: int, good: int) -> None:
    times = [1.0]
    for number in range(100):
        times.append(times[-1] + (5.0 if number < late else 1.0))
    assert played(Limits(itl_s=2.0), times).good == good


def test_gaps_of_rows_that_paused_are_told_apart() -> None:
    recorder = Recorder(Limits(itl_s=1.5), 2.0)
    for request, output in ((1, 3), (2, 2)):
        recorder.send(request, TracedRequest(0.0, bytes(4), output), Traffic())
    recorder.take([Progress(1, [0]), Progress(2, [0])], 0.0, 1.0)
    recorder.take([Progress(1, [0])], 1.0, 2.0)
    recorder.take([Progress(1, [1], "stop"), Progress(2, [1], "stop")], 2.0, 3.0)
    assert (recorder.itl.count, recorder.itl.total, recorder.itl.max) == (3, 1.0 + 1.0 + 2.0, 2.0)
    assert (recorder.finished, recorder.good) == (2, 1)


def test_a_router_sees_what_passes_through_it() -> None:
    recorder, traffic = Recorder(Limits(), 2.0), Traffic()
    recorder.send(1, TracedRequest(0.0, bytes(40), 2), traffic)
    recorder.send(2, TracedRequest(0.0, bytes(80), 2), traffic)
    assert (traffic.requests, traffic.unanswered_tokens) == (2, 30)
    recorder.take([Progress(1, [0])], 0.0, 1.0)
    assert (traffic.requests, traffic.unanswered_tokens) == (2, 20)
    recorder.take([Progress(1, [0], "stop"), Progress(2, [], "deadline", "late")], 1.0, 2.0)
    assert (traffic.requests, traffic.unanswered_tokens) == (0, 0)
    assert (recorder.finished, recorder.expired) == (1, 1)


def test_whoever_ends_twice_or_fails_is_an_error() -> None:
    recorder = played(Limits(), [1.0])
    with pytest.raises(KeyError):
        recorder.take([Progress(1, [0])], 1.0, 2.0)
    recorder.send(2, TracedRequest(0.0, bytes(4), 2), Traffic())
    with pytest.raises(SimulationError, match="on fire"):
        recorder.take([Progress(2, [], "error", "the device is on fire")], 1.0, 2.0)
