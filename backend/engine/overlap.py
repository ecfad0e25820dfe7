"""Runs steps in a thread of its own, one after another, so that the engine plans the next one meanwhile.

Knows plans and results; which step comes next is the loop's business. torch lets go of the interpreter lock in its
operations, so the planning thread gets on while a step computes.
"""

import queue
import threading
from collections.abc import Callable

from scheduler.loop import Done, Runner, carry_out
from scheduler.plan import StepPlan


class Overlapped:
    """An ``Executor`` with a thread. ``on_done`` is called there after each step, before it can be collected."""

    def __init__(self, runner: Runner, clock: Callable[[], float]) -> None:
        self.runner = runner
        self.on_done: Callable[[], None] = lambda: None
        self._clock = clock
        self._plans: queue.SimpleQueue[StepPlan] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="steps", daemon=True).start()

    def launch(self, plan: StepPlan) -> None:
        """Run ``plan`` after those launched before; does not wait."""
        self._plans.put(plan)

    def collect(self) -> Done:
        """The outcome of the oldest plan; waits for it."""
        return self._done.get()

    def _work(self) -> None:
        while True:
            self._done.put(carry_out(self.runner, self._plans.get(), self._clock))
            self.on_done()
