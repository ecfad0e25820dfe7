"""The device's timeline against the host's, and what it samples."""

import pytest

from scheduler.cost import CostModel
from scheduler.plan import Chunk, Opened, Sampling, StepPlan
from scheduler.simulate.device import SimulatedDevice, VirtualClock
from scheduler.trace import GOES_ON, STOP

COST = CostModel(a=1.0, b=0.1, c=0.01, d=0.001)


def opened(slot: int, request: int) -> Opened:
    return Opened(slot, request, Sampling(), 0)


def test_a_step_takes_what_the_cost_model_says() -> None:
    clock = VirtualClock()
    device = SimulatedDevice(clock, COST, slots=2, tell=True)
    chunks = [Chunk(1, 0, 0, bytes(4 * 5), False), Chunk(2, 1, 7, bytes(4), False)]
    device.launch(StepPlan(1, chunks, [opened(0, 1), opened(1, 2)]))
    assert clock.now == 0.0, "launching does not wait"
    pairs = 1 + 2 + 3 + 4 + 5
    seconds = 1.0 + 6 * 0.1 + (5 + 8) * 0.01 + pairs * 0.001
    assert device.first_end == pytest.approx(seconds)
    assert device.collect().seconds == pytest.approx(seconds)
    assert clock.now == device.busy == pytest.approx(seconds)


def test_steps_run_one_after_another_and_the_host_meanwhile() -> None:
    clock = VirtualClock()
    device = SimulatedDevice(clock, CostModel(10.0, 0.0, 0.0, 0.0), slots=1, host_s=4.0)
    device.launch(StepPlan(1, [Chunk(1, 0, 0, bytes(4), False)], [opened(0, 1)]))
    device.launch(StepPlan(2, [Chunk(1, 0, 1, bytes(4), False)]))
    assert (clock.now, device.first_end) == (4.0, 12.0)
    device.collect()
    assert (clock.now, device.first_end) == (14.0, 22.0)
    device.collect()
    assert (clock.now, device.busy) == (24.0, 20.0)


def test_the_last_token_of_an_answer_is_the_stop_token() -> None:
    device = SimulatedDevice(VirtualClock(), COST, slots=1)
    device.lengths[1] = 5 + 3
    tokens = []
    for step, start in enumerate([0, 5, 6], 1):
        count = 5 if start == 0 else 1
        device.launch(
            StepPlan(step, [Chunk(1, 0, start, bytes(4 * count), True)], [opened(0, 1)] if start == 0 else [])
        )
        result = device.collect().result
        assert result is not None
        tokens += result.tokens[0]
    assert tokens == [GOES_ON, GOES_ON, STOP]


def test_a_gap_is_noticed() -> None:
    device = SimulatedDevice(VirtualClock(), COST, slots=1)
    device.launch(StepPlan(1, [Chunk(1, 0, 0, bytes(8), False)], [opened(0, 1)]))
    with pytest.raises(ValueError, match="slot 0 has 2 tokens"):
        device.launch(StepPlan(2, [Chunk(1, 0, 3, bytes(4), False)]))
