"""Commands in, events out: the engine's loop around the scheduler's ``StepLoop``.

Knows request ids and counters; no sockets, no threads, no tensors. The process around it is ``process.py``.
"""

from collections.abc import Callable

from backend.engine.messages import (
    Cancel,
    Command,
    Event,
    Inspect,
    Lanes,
    Look,
    LookAtBatch,
    Output,
    PromptPublished,
    PublishPrompt,
    Report,
    SetTenant,
    Shutdown,
    Started,
    StepOutput,
    Submit,
    Tree,
    WithdrawPrompt,
)
from radix.accounts import Quota
from radix.errors import CacheError
from radix.snapshot import Viewer
from scheduler.lanes import lanes
from scheduler.loop import StepLoop
from scheduler.plan import Progress
from scheduler.request import NewRequest, RequestRejected
from scheduler.scheduler import Scheduler

# The next step is planned so long before the one that runs is predicted to end: later, and it might end first; earlier,
# and whoever comes meanwhile has to wait for one step more.
_LEAD_S = 0.003
_LEAD_SHARE = 0.1


class EngineLoop:
    """Scheduler and runner are behind ``steps``. ``clock`` gives seconds, monotonic.

    ``step`` is ``launch`` and ``collect`` in one. All methods are called from one thread.
    """

    def __init__(self, scheduler: Scheduler, steps: StepLoop, clock: Callable[[], float]) -> None:
        self.scheduler = scheduler
        self.steps = steps
        self.clock = clock
        self.closing = False
        self._step_began = clock()

    @property
    def has_work(self) -> bool:
        """Whether ``step`` would do something now."""
        return self.scheduler.has_work or self.steps.in_flight > 0

    def step_seconds(self) -> float:
        """For how long the current step has been running; 0 when none is. May be called from any thread."""
        return max(self.clock() - self._step_began, 0.0) if self.steps.in_flight else 0.0

    def handle(self, command: Command) -> Event | None:
        """Carry out one command; the answer, when there is one. A bad request fails alone."""
        match command:
            case Submit():
                return self._submit(command)
            case Cancel(request=request):
                self.scheduler.cancel(request, self.clock())
            case Inspect(check=check):
                cache = self.scheduler.cache
                problem = self._problem() if check else ""
                return Report(self.scheduler.load(), problem, cache.pins.states(), cache.tenants())
            case PublishPrompt(name=name, prompt=prompt, pin=pin):
                return PromptPublished(name, self._publish(name, prompt, pin))
            case WithdrawPrompt(name=name, prompt=prompt):
                self.scheduler.withdraw_prompt(name, prompt)
            case SetTenant(tenant=tenant, weight=weight, page_limit=limit, page_watermark=watermark):
                return self._set_tenant(tenant, weight, limit, watermark)
            case Look(tenant=tenant, everything=everything, limit=limit):
                return Tree(self.scheduler.cache.snapshot(Viewer(tenant, everything), limit))
            case LookAtBatch(tenant=tenant, everything=everything, limit=limit):
                return Lanes(lanes(self.scheduler, None if everything else tenant, limit))
            case Shutdown():
                self.closing = True
        return None

    def launch(self) -> bool:
        """Plan a step and launch it; False when none can be planned now."""
        if not self.steps.in_flight:
            self._step_began = self.clock()
        return self.steps.launch()

    def spare_s(self) -> float:
        """Seconds until the next step should be planned, while one runs; 0: it is time, or nothing can be planned."""
        if self.steps.in_flight != 1 or not self.steps.may_launch or not self.scheduler.fit.ready:
            return 0.0
        expected = self.scheduler.predicted_s()
        left = self._step_began + expected - self.clock()
        return max(left - max(_LEAD_S, _LEAD_SHARE * expected), 0.0)

    def collect(self) -> StepOutput | None:
        """Wait for the step that runs; None when none does and nothing has ended. Requests past their deadline end."""
        outcome = self.steps.collect()
        self._step_began = self.clock()
        outputs = [_output(progress) for progress in self.scheduler.expire(self._step_began)]
        if outcome is None:
            return StepOutput(started=[], outputs=outputs, load=self.scheduler.load()) if outputs else None
        started = [
            Started(request=opened.request, cached=opened.cached, queue_ms=1e3 * outcome.waited[opened.request])
            for opened in outcome.opened
            if not opened.resumed and opened.request >= 0  # below 0: prompts that are computed for nobody
        ]
        outputs += [_output(progress) for progress in outcome.progress]
        return StepOutput(started=started, outputs=outputs, load=self.scheduler.load(), step_ms=1e3 * outcome.seconds)

    def step(self) -> StepOutput | None:
        """Launch what can be launched, then collect one; None when nothing could run."""
        expired = self.scheduler.expire(self.clock())
        while self.launch():
            pass
        output = self.collect()
        if not expired:
            return output
        first = [_output(progress) for progress in expired]
        if output is None:
            return StepOutput(started=[], outputs=first, load=self.scheduler.load())
        return StepOutput(output.started, first + output.outputs, output.load, output.step_ms)

    def _submit(self, command: Submit) -> StepOutput | None:
        try:
            self.scheduler.submit(
                NewRequest(
                    request=command.request,
                    prompt=command.prompt,
                    max_tokens=command.max_tokens,
                    sampling=command.sampling,
                    stop_tokens=frozenset(command.stop_tokens),
                    tenant=command.tenant,
                    namespace=command.namespace,
                    system_tokens=command.system_tokens,
                    history_tokens=command.history_tokens,
                    queue_seconds=command.queue_seconds,
                    seconds=command.seconds,
                    open_ended=command.open_ended,
                ),
                self.clock(),
            )
        except RequestRejected as error:
            return self._failed(command.request, error.code, error.message, error.retry_after_s)
        except CacheError as error:
            return self._failed(command.request, "invalid_request", str(error), 0.0)
        return None

    def _failed(self, request: int, code: str, message: str, retry_after_s: float) -> StepOutput:
        output = Output(request, [], "error", code, message, retry_after_s)
        return StepOutput(started=[], outputs=[output], load=self.scheduler.load())

    def _publish(self, name: str, prompt: bytes, pin: str) -> str:
        """Why it cannot be done, or an empty string."""
        try:
            self.scheduler.publish_prompt(name, prompt, self.clock(), pin)
        except CacheError as error:
            return str(error)
        return ""

    def _set_tenant(self, tenant: str, weight: float, limit: int, watermark: int) -> StepOutput | None:
        """What it ends, if anything."""
        try:
            ended = self.scheduler.set_tenant(tenant, weight, Quota(limit, watermark), self.clock())
        except (CacheError, ValueError):
            ended = self.scheduler.set_tenant(tenant)
        outputs = [_output(progress) for progress in ended]
        return StepOutput(started=[], outputs=outputs, load=self.scheduler.load()) if outputs else None

    def _problem(self) -> str:
        """The first broken invariant, in words; empty when all hold."""
        try:
            self.scheduler.check()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""


_CODES = {"error": "engine_error", "quota": "quota_exceeded"}


def _output(progress: Progress) -> Output:
    code = _CODES.get(progress.finish, "")
    return Output(
        request=progress.request,
        tokens=progress.tokens,
        finish="error" if code else progress.finish,
        code=code,
        message=progress.message,
        logprobs=progress.logprobs,
        prompt_logprobs=progress.prompt_logprobs,
    )
