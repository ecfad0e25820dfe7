"""Steps on a device with a queue of its own: begun before the ones before have ended, and each fails alone."""

import itertools
import threading

from backend.engine.overlap import Queued
from scheduler.plan import StepPlan, StepResult


class Device:
    """Its steps end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.go = threading.Semaphore(0)

    def start(self, plan: StepPlan):
        self.begun.append(plan.step)
        if plan.step == 2:
            raise RuntimeError("cannot begin")

        def finish() -> StepResult:
            assert self.go.acquire(timeout=10)
            if plan.step == 3:
                raise RuntimeError("broke")
            return StepResult(plan.step, [])

        return finish


def plan(step: int) -> StepPlan:
    return StepPlan(step=step, freed=[], opened=[], chunks=[])


def test_a_step_begins_before_the_one_before_has_ended() -> None:
    device, told = Device(), threading.Semaphore(0)
    ticks = itertools.count(1)
    executor = Queued(device, lambda: float(next(ticks)))
    executor.on_done = told.release
    executor.launch(plan(1))
    executor.launch(plan(4))
    assert device.begun == [1, 4] and not told.acquire(blocking=False)
    device.go.release()
    assert executor.collect().result == StepResult(1, [])
    assert told.acquire(timeout=10) and not told.acquire(blocking=False)
    device.go.release()
    done = executor.collect()
    assert done.result == StepResult(4, []) and done.error is None
    # Begun at 1 and 2, ended at 3 and 4: the second computed from 3 on.
    assert done.seconds == 1.0


def test_what_cannot_begin_or_breaks_is_told_in_its_turn() -> None:
    device = Device()
    executor = Queued(device, lambda: 0.0)
    for step in (1, 2, 3, 4):
        executor.launch(plan(step))
    for _ in range(3):
        device.go.release()
    outcomes = [executor.collect() for _ in range(4)]
    assert [str(done.error) if done.error else done.result.step for done in outcomes] == [1, "cannot begin", "broke", 4]
