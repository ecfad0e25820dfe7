"""StepLoop: plan, launch, collect, commit. The engine process and the simulator run this same code.

Knows neither tensors nor clocks: the executor and the clock are arguments. With a depth of 2 the next step is planned
and launched while one runs, before that one's tokens are known; so planning, and whatever is done with the outcome,
costs no time between steps.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from radix.packing import LARGEST_ID
from scheduler.plan import Opened, Progress, StepPlan, StepResult
from scheduler.scheduler import DEPTH, Scheduler


class Runner(Protocol):
    """Whatever computes a step."""

    def run(self, plan: StepPlan) -> StepResult:
        """Carry out ``plan``; an exception ends every request in it, and only those."""
        ...


class Done(NamedTuple):
    """A step that has run. ``error``: what it raised; ``seconds``: how long it ran, 0 when that is not known."""

    result: StepResult | None
    error: Exception | None
    seconds: float


class Executor(Protocol):
    """Runs plans one after another, in the order in which they are launched."""

    def launch(self, plan: StepPlan) -> None:
        """Run ``plan`` after those launched before; does not wait."""
        ...

    def collect(self) -> Done:
        """The outcome of the oldest plan that has not been collected; waits for it."""
        ...


class Inline:
    """Runs a plan when it is collected, in the caller's thread."""

    def __init__(self, runner: Runner, clock: Callable[[], float]) -> None:
        self._runner = runner
        self._clock = clock
        self._launched: deque[StepPlan] = deque()

    def launch(self, plan: StepPlan) -> None:
        """Remember it."""
        self._launched.append(plan)

    def collect(self) -> Done:
        """Run the oldest."""
        return carry_out(self._runner, self._launched.popleft(), self._clock)


def carry_out(runner: Runner, plan: StepPlan, clock: Callable[[], float]) -> Done:
    """Run one plan and take the time."""
    began = clock()
    try:
        return Done(runner.run(plan), None, clock() - began)
    except Exception as error:  # the boundary: a failed step costs its own requests, never the engine
        return Done(None, error, 0.0)


class StepOutcome(msgspec.Struct, frozen=True, gc=False):
    """What a step meant. ``waited``: seconds in the queue of each request in ``opened``; ``seconds``: how long it ran,
    0 when that is not known."""

    step: int
    opened: list[Opened]
    waited: dict[int, float]
    progress: list[Progress]
    seconds: float = 0.0


class _Launched(NamedTuple):
    plan: StepPlan
    waited: dict[int, float]


class StepLoop:
    """``clock`` gives seconds on the scale of ``Scheduler``'s ``now``; ``depth`` 1: no step is planned ahead."""

    def __init__(
        self, scheduler: Scheduler, executor: Executor, clock: Callable[[], float], depth: int = DEPTH
    ) -> None:
        if not 1 <= depth <= DEPTH:
            raise ValueError(f"depth must be from 1 to {DEPTH}, got {depth}")
        self.scheduler = scheduler
        self.executor = executor
        self.clock = clock
        self.depth = depth
        self._launched: deque[_Launched] = deque()

    @property
    def in_flight(self) -> int:
        """Steps that have been launched and not collected."""
        return len(self._launched)

    @property
    def may_launch(self) -> bool:
        """Whether one more step may be planned now."""
        return len(self._launched) < self.depth and self.scheduler.has_work

    def launch(self) -> bool:
        """Plan one step and launch it; False when nothing can be planned now."""
        if not self.may_launch:
            return False
        plan = self.scheduler.plan(self.clock())
        if plan is None:
            return False
        waited = {opened.request: self.scheduler.waited(opened.request) for opened in plan.opened}
        self._launched.append(_Launched(plan, waited))
        self.executor.launch(plan)
        return True

    def collect(self) -> StepOutcome | None:
        """Wait for the oldest step in flight and take it in; None when none is."""
        if not self._launched:
            return None
        plan, waited = self._launched.popleft()
        result, error, seconds = self.executor.collect()
        if error is None and result is not None:
            try:
                verify(plan, result)
            except ValueError as wrong:
                error = wrong
        if error is not None or result is None:
            result, seconds = failed(plan, f"{type(error).__name__}: {error}"), 0.0
        progress = self.scheduler.commit(result, self.clock(), seconds)
        return StepOutcome(plan.step, plan.opened, waited, progress, seconds)

    def step(self) -> StepOutcome | None:
        """Launch what can be launched, then collect one; None when there is nothing to do."""
        while self.launch():
            pass
        return self.collect()


def verify(plan: StepPlan, result: StepResult) -> None:
    """Raise ``ValueError`` when ``result`` cannot be the answer to ``plan``. O(chunks)."""
    if result.step != plan.step:
        raise ValueError(f"the runner answered step {result.step} instead of {plan.step}")
    if len(result.tokens) != len(plan.chunks):
        raise ValueError(f"the runner answered {len(result.tokens)} chunks of {len(plan.chunks)}")
    for chunk, tokens in zip(plan.chunks, result.tokens, strict=True):
        if bool(tokens) != chunk.emits and chunk.request not in result.failures:
            raise ValueError(f"the runner gave {len(tokens)} tokens for request {chunk.request}, emits={chunk.emits}")
        if result.logprobs and len(result.logprobs.get(chunk.request, tokens)) != len(tokens):
            raise ValueError(f"the runner gave log-probabilities of other tokens than request {chunk.request} has")
        for token in tokens:
            if not 0 <= token <= LARGEST_ID:
                raise ValueError(
                    f"the runner gave token {token} for request {chunk.request}: not from 0 to {LARGEST_ID}"
                )


def failed(plan: StepPlan, message: str) -> StepResult:
    """The result that ends every request of ``plan`` with ``message``."""
    return StepResult(
        step=plan.step,
        tokens=[[] for _ in plan.chunks],
        failures={chunk.request: message for chunk in plan.chunks},
    )
