"""A virtual clock, and the device on it: stands where the real runner stands, and reads only the plans.

Two timelines. The host's is the clock: it moves while the host plans, and when it waits for the device. The device's
runs the plans one after another, each as long as the cost model says. So with a depth of 1 a step takes host + device,
with a depth of 2 the longer of both::

    depth 1   host    |plan|          |take in|plan|          |take in|
              device        |  step 1  |            |  step 2  |
    depth 2   host    |plan|plan|      |take in|plan|   |take in|plan|
              device        |  step 1  |  step 2  |  step 3  |
"""

from collections import deque
from typing import NamedTuple

from scheduler.cost import CostModel, attended_of
from scheduler.loop import Done
from scheduler.plan import StepPlan, StepResult
from scheduler.trace import GOES_ON, STOP

_GOES_ON = [GOES_ON]
_STOP = [STOP]
_NOTHING: list[int] = []
_OPENED = -1


class VirtualClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


class _Running(NamedTuple):
    result: StepResult
    ends: float
    seconds: float


class SimulatedDevice:
    """An ``Executor`` for a table of ``slots`` rows. ``host_s``: seconds that the host needs for a step, half of it
    before the launch, half when it takes the outcome in. ``tell``: say how long steps ran, so that the scheduler learns
    its own cost model; else it hears nothing (and saves the time of learning).

    ``lengths``: for each open request the number of tokens, prompt and output, after which it stops; the owner's.
    Raises ``ValueError`` when a row's chunks do not follow each other, as a real runner would compute nonsense.
    """

    def __init__(
        self, clock: VirtualClock, cost: CostModel, slots: int, host_s: float = 0.0, tell: bool = False
    ) -> None:
        self.lengths: dict[int, int] = {}
        self.busy = 0.0
        self._clock = clock
        self._cost = cost
        self._half = host_s / 2
        self._tell = tell
        self._free = 0.0
        self._running: deque[_Running] = deque()
        self._context = [0] * slots
        self._length = [0] * slots

    @property
    def first_end(self) -> float:
        """When the oldest step that has not been collected ends; some step has been launched."""
        return self._running[0].ends

    def launch(self, plan: StepPlan) -> None:
        """Begin as soon as the host has planned and the steps before have ended."""
        self._clock.now += self._half
        result, seconds = self._run(plan)
        self._free = max(self._free, self._clock.now) + seconds
        self.busy += seconds
        self._running.append(_Running(result, self._free, seconds))

    def collect(self) -> Done:
        """Wait for the oldest step, then handle its outcome."""
        result, ends, seconds = self._running.popleft()
        self._clock.now = max(self._clock.now, ends) + self._half
        return Done(result, None, seconds if self._tell else 0.0)

    def _run(self, plan: StepPlan) -> tuple[StepResult, float]:
        """What the step samples, and how long it takes. About 0.4 us a decode."""
        context, length = self._context, self._length
        for opened in plan.opened:
            context[opened.slot] = _OPENED
            length[opened.slot] = self.lengths.get(opened.request, 0)
        new = read = 0
        attended = 0.0
        tokens: list[list[int]] = []
        append = tokens.append
        for chunk in plan.chunks:
            slot, start, count = chunk.slot, chunk.start, len(chunk.tokens) >> 2
            if context[slot] != start and context[slot] != _OPENED:
                raise ValueError(f"slot {slot} has {context[slot]} tokens and is asked to go on at {start}")
            end = context[slot] = start + count
            new += count
            read += end
            if count > 1:
                attended += attended_of(start, count)
            append((_STOP if end + 1 == length[slot] else _GOES_ON) if chunk.emits else _NOTHING)
        return StepResult(plan.step, tokens), self._cost.seconds(new, read, attended)
