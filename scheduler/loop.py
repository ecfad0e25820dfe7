"""StepLoop: plan, run, commit. The engine process and the simulator run this same code.

Knows neither tensors nor clocks: the runner and the clock are arguments.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from scheduler.plan import Opened, Progress, StepPlan, StepResult
from scheduler.scheduler import Scheduler


class Runner(Protocol):
    """Whatever computes a step."""

    def run(self, plan: StepPlan) -> StepResult:
        """Carry out ``plan``; an exception ends every request in it, and only those."""
        ...


class StepOutcome(msgspec.Struct, frozen=True, gc=False):
    """What a step meant. ``waited``: seconds in the queue of each request in ``opened``."""

    step: int
    opened: list[Opened]
    waited: dict[int, float]
    progress: list[Progress]


class StepLoop:
    """``clock`` gives seconds on the scale of ``Scheduler``'s ``now``."""

    def __init__(self, scheduler: Scheduler, runner: Runner, clock: Callable[[], float]) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.clock = clock

    def step(self) -> StepOutcome | None:
        """One step; None when there is nothing to do."""
        plan = self.scheduler.plan(self.clock())
        if plan is None:
            return None
        waited = {opened.request: self.scheduler.waited(opened.request) for opened in plan.opened}
        try:
            result = self.runner.run(plan)
            verify(plan, result)
        except Exception as error:  # the boundary: a failed step costs its own requests, never the engine
            result = failed(plan, f"{type(error).__name__}: {error}")
        progress = self.scheduler.commit(result, self.clock())
        return StepOutcome(plan.step, plan.opened, waited, progress)


def verify(plan: StepPlan, result: StepResult) -> None:
    """Raise ``ValueError`` when ``result`` cannot be the answer to ``plan``. O(chunks)."""
    if result.step != plan.step:
        raise ValueError(f"the runner answered step {result.step} instead of {plan.step}")
    if len(result.tokens) != len(plan.chunks):
        raise ValueError(f"the runner answered {len(result.tokens)} chunks of {len(plan.chunks)}")
    for chunk, tokens in zip(plan.chunks, result.tokens, strict=True):
        if bool(tokens) != chunk.emits and chunk.request not in result.failures:
            raise ValueError(f"the runner gave {len(tokens)} tokens for request {chunk.request}, emits={chunk.emits}")
        for token in tokens:
            if not 0 <= token < 1 << 32:
                raise ValueError(
                    f"the runner gave token {token} for request {chunk.request}: not an unsigned 32-bit id"
                )


def failed(plan: StepPlan, message: str) -> StepResult:
    """The result that ends every request of ``plan`` with ``message``."""
    return StepResult(
        step=plan.step,
        tokens=[[] for _ in plan.chunks],
        failures={chunk.request: message for chunk in plan.chunks},
    )
