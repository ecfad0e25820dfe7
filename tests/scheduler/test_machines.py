"""The cost models against the figures that they were derived from."""

import pytest

from scheduler.machines import CPU_135M, H200_1B, H200_8B, MACHINES
from scheduler.settings import Settings


def test_h200_lies_a_little_above_the_floors_of_the_notes() -> None:
    """Floors of a decode step, ms: (requests, context, floor)."""
    for machine, floors in (
        (H200_8B, [(1, 1024, 3.52), (1, 16384, 3.99), (64, 4096, 11.5)]),
        (H200_1B, [(1, 1024, 0.58), (64, 4096, 2.57), (256, 4096, 8.79)]),
    ):
        for requests, context, floor in floors:
            predicted = 1000 * machine.cost.seconds(requests, requests * context)
            assert 1.0 < predicted / floor < 1.5


def test_h200_lies_a_little_below_the_prefill_limits_of_the_notes() -> None:
    """Prompt tokens/s at 2,048 a step: (attended tokens on average, limit)."""
    for machine, limits in (
        (H200_8B, [(512, 54e3), (2048, 49e3), (8192, 35e3)]),
        (H200_1B, [(512, 380e3), (2048, 318e3), (8192, 193e3)]),
    ):
        for attended, limit in limits:
            predicted = 2048 / machine.cost.seconds(2048, 0, 2048 * attended)
            assert 0.8 < predicted / limit < 1.0


def test_cpu_gives_the_measured_times_back() -> None:
    cost = CPU_135M.cost
    assert cost.seconds(1, 170) == pytest.approx(17.2e-3, rel=0.01)
    assert cost.seconds(16, 16 * 172) == pytest.approx(33.0e-3, rel=0.01)
    assert 15 * cost.a + 6537 * (cost.b + 545 * cost.d) + 15_800 * cost.c == pytest.approx(4.52, rel=0.01)


def test_sizes_go_together() -> None:
    for name, machine in MACHINES.items():
        assert name == machine.name
        Settings(16, machine.kv_tokens // 16, machine.max_running, machine.max_step_tokens)
        assert list(machine.loads) == sorted(machine.loads)
