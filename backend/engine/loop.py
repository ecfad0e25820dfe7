"""Commands in, events out: the engine's loop around the scheduler's ``StepLoop``.

Knows request ids, deadlines and counters; no sockets, no threads, no tensors. The process around it is ``process.py``.
"""

import heapq
from collections.abc import Callable

from backend.engine.messages import (
    Cancel,
    Command,
    Event,
    Inspect,
    Output,
    Report,
    Shutdown,
    Started,
    StepOutput,
    Submit,
)
from scheduler.loop import StepLoop
from scheduler.request import NewRequest, RequestRejected
from scheduler.scheduler import Scheduler


class EngineLoop:
    """Owns nothing but the deadlines; scheduler and runner are behind ``steps``.

    ``clock`` gives seconds, monotonic. ``handle`` and ``step`` are called from one thread.
    """

    def __init__(self, scheduler: Scheduler, steps: StepLoop, clock: Callable[[], float]) -> None:
        self.scheduler = scheduler
        self.steps = steps
        self.clock = clock
        self.closing = False
        self._deadlines: list[tuple[float, int]] = []
        self._open: set[int] = set()

    @property
    def has_work(self) -> bool:
        """Whether ``step`` would do something now."""
        return self.scheduler.has_work

    def handle(self, command: Command) -> Event | None:
        """Carry out one command; the answer, when there is one. A bad request fails alone."""
        match command:
            case Submit():
                return self._submit(command)
            case Cancel(request=request):
                self._open.discard(request)
                self.scheduler.cancel(request, self.clock())
            case Inspect(check=check):
                return Report(load=self.scheduler.load(), problem=self._problem() if check else "")
            case Shutdown():
                self.closing = True
        return None

    def step(self) -> StepOutput | None:
        """Run one step; None when nothing could run. Requests past their deadline end first."""
        outputs = self._expire()
        began = self.clock()
        outcome = self.steps.step()
        if outcome is None:
            return StepOutput(started=[], outputs=outputs, load=self.scheduler.load()) if outputs else None
        started = [
            Started(request=opened.request, cached=opened.cached, queue_ms=1e3 * outcome.waited[opened.request])
            for opened in outcome.opened
            if not opened.resumed
        ]
        for progress in outcome.progress:
            if progress.finish:
                self._open.discard(progress.request)
            outputs.append(
                Output(
                    request=progress.request,
                    tokens=progress.tokens,
                    finish=progress.finish,
                    code="engine_error" if progress.finish == "error" else "",
                    message=progress.message,
                )
            )
        return StepOutput(
            started=started, outputs=outputs, load=self.scheduler.load(), step_ms=1e3 * (self.clock() - began)
        )

    def _submit(self, command: Submit) -> StepOutput | None:
        now = self.clock()
        try:
            if command.request in self._open:
                raise RequestRejected("invalid_request", f"request id {command.request} is already in use")
            self.scheduler.submit(
                NewRequest(
                    request=command.request,
                    prompt=command.prompt,
                    max_tokens=command.max_tokens,
                    sampling=command.sampling,
                    stop_tokens=frozenset(command.stop_tokens),
                    tenant=command.tenant,
                    namespace=command.namespace,
                ),
                now,
            )
        except RequestRejected as error:
            return self._failed(command.request, error.code, error.message)
        self._open.add(command.request)
        if command.seconds > 0:
            heapq.heappush(self._deadlines, (now + command.seconds, command.request))
        return None

    def _failed(self, request: int, code: str, message: str) -> StepOutput:
        output = Output(request=request, tokens=[], finish="error", code=code, message=message)
        return StepOutput(started=[], outputs=[output], load=self.scheduler.load())

    def _expire(self) -> list[Output]:
        now = self.clock()
        outputs = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request = heapq.heappop(self._deadlines)
            if request in self._open:
                self._open.discard(request)
                self.scheduler.cancel(request, now)
                outputs.append(Output(request=request, tokens=[], finish="deadline"))
        return outputs

    def _problem(self) -> str:
        """The first broken invariant, in words; empty when all hold."""
        try:
            self.scheduler.check()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""
