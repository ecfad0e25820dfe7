"""Steps beside the thread that plans them, one after another, so that the engine plans the next one meanwhile.

Knows plans and results; which step comes next is the loop's business.
"""

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from scheduler.loop import Done, Runner, carry_out
from scheduler.plan import StepPlan, StepResult


class Starter(Protocol):
    """A runner whose device goes on by itself."""

    def start(self, plan: StepPlan) -> Callable[[], StepResult]:
        """Begin a step; the returned function waits for its end."""
        ...


class Overlapped:
    """An ``Executor`` with a thread that computes. torch lets go of the interpreter lock in its operations, so the
    planning thread gets on. ``on_done`` is called there after each step, before it can be collected."""

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


class Queued:
    """An ``Executor`` for a device with a queue of its own: a step is handed to it at once, while the one before it
    still computes, so it never waits for the host; a thread waits for the outcomes. ``on_done`` as in ``Overlapped``.
    """

    def __init__(self, runner: Starter, clock: Callable[[], float]) -> None:
        self.runner = runner
        self.on_done: Callable[[], None] = lambda: None
        self._clock = clock
        self._begun: queue.SimpleQueue[tuple[Callable[[], StepResult], float]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="steps", daemon=True).start()

    def launch(self, plan: StepPlan) -> None:
        """Begin ``plan`` behind those launched before; does not wait."""
        began = self._clock()
        try:
            self._begun.put((self.runner.start(plan), began))
        except Exception as error:
            self._begun.put((_raising(error), began))

    def collect(self) -> Done:
        """The outcome of the oldest plan; waits for it."""
        return self._done.get()

    def _work(self) -> None:
        ended = 0.0
        while True:
            finish, began = self._begun.get()
            try:
                result = finish()
            except Exception as error:  # the boundary: a failed step costs its own requests, never the engine
                self._done.put(Done(None, error, 0.0))
            else:
                began, ended = max(began, ended), self._clock()
                self._done.put(Done(result, None, ended - began))
            self.on_done()


def _raising(error: Exception) -> Callable[[], StepResult]:
    def finish() -> StepResult:
        raise error

    return finish
