"""The simulator: the engine's own step loop on a virtual clock, with a cost model where the model would run.

    python -m scheduler.simulate --mooncake trace.jsonl --pages 20000
    python -m scheduler.simulate --groups 64 --prompts-per-group 16

Figures are predictions of a cost model: they compare policies with each other, not machines.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from scheduler.loop import StepLoop, StepOutcome
from scheduler.plan import StepPlan, StepResult
from scheduler.request import NewRequest, RequestRejected
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from scheduler.trace import TracedRequest, TraceError, read_mooncake, shared_prefixes


class CostModel(msgspec.Struct, frozen=True):
    """Seconds of a step: ``a + b * new_tokens + c * kv_tokens_read``. Defaults: roughly 8 B parameters on one GPU."""

    a: float = 8e-3
    b: float = 6e-5
    c: float = 6e-8

    def seconds(self, new_tokens: int, kv_tokens_read: int) -> float:
        """Predicted time of one step."""
        return self.a + self.b * new_tokens + self.c * kv_tokens_read


class VirtualClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


class SimulatedRunner:
    """Stands where the real runner stands and reads only the plan; a step takes what the cost model says.

    Raises ``ValueError`` when a slot's chunks do not follow each other, as a real one would compute nonsense.
    """

    def __init__(self, clock: VirtualClock, cost: CostModel) -> None:
        self._clock = clock
        self._cost = cost
        self._context: dict[int, int] = {}

    def run(self, plan: StepPlan) -> StepResult:
        """Let the time of the step pass; every sampled token is 0."""
        context = self._context
        for slot in plan.freed:
            context.pop(slot, None)
        for opened in plan.opened:
            context[opened.slot] = -1
        new = read = 0
        tokens: list[list[int]] = []
        # About 0.4 us a chunk; `count` would be a property call.
        for chunk in plan.chunks:
            slot, start, count = chunk.slot, chunk.start, len(chunk.tokens) // 4
            if context[slot] not in (-1, start):
                raise ValueError(f"slot {slot} has {context[slot]} tokens and is asked to go on at {start}")
            context[slot] = start + count
            new += count
            read += start + count
            tokens.append([0] if chunk.emits else [])
        self._clock.now += self._cost.seconds(new, read)
        return StepResult(plan.step, tokens)


class Figures(msgspec.Struct, frozen=True):
    """Times in seconds. ``hit_rate``: cached of all prompt tokens. ``wasted_slots``: share of rows that ran empty while
    requests waited. ``throughput``: output tokens per second. ``rejected`` requests never ran.
    """

    requests: int
    rejected: int
    seconds: float
    steps: int
    hit_rate: float
    ttft_p50: float
    ttft_p99: float
    itl_p99: float
    itl_max: float
    throughput: float
    computed_tokens: int
    preemptions: int
    evicted_pages: int
    wasted_slots: float


class _Recorder:
    """When each request's tokens came, by the virtual clock."""

    def __init__(self) -> None:
        self.arrivals: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.ttft: list[float] = []
        self.itl: list[float] = []
        self.wasted_rows = 0

    def take(self, outcome: StepOutcome, now: float) -> None:
        """Record a step that ended at ``now``."""
        last, itl = self.last, self.itl
        for progress in outcome.progress:
            request = progress.request
            if progress.finish == "error":
                raise ValueError(f"request {request}: {progress.message}")
            before = last.get(request)
            if before is None:
                self.ttft.append(now - self.arrivals.pop(request))
            else:
                itl.append(now - before)
            if progress.finish:
                last.pop(request, None)
            else:
                last[request] = now


def simulate(trace: Iterable[TracedRequest], settings: Settings, cost: CostModel | None = None) -> Figures:
    """Run a workload to its end; requests arrive at their times, in order.

    A request that can never fit is counted as rejected; so is one that finds the queue full.
    """
    clock = VirtualClock()
    scheduler = Scheduler(settings)
    loop = StepLoop(scheduler, SimulatedRunner(clock, cost or CostModel()), clock)
    recorder = _Recorder()
    submitted = rejected = 0
    arriving = iter(trace)
    coming = next(arriving, None)
    while coming is not None or scheduler.has_work:
        if coming is not None and not scheduler.has_work:
            clock.now = max(clock.now, coming.arrival)
        while coming is not None and coming.arrival <= clock.now:
            submitted += 1
            try:
                scheduler.submit(NewRequest(submitted, coming.prompt, coming.output), coming.arrival)
                recorder.arrivals[submitted] = coming.arrival
            except RequestRejected:
                rejected += 1
            coming = next(arriving, None)
        outcome = loop.step()
        if outcome is not None:
            recorder.take(outcome, clock.now)
            if scheduler.waiting:
                recorder.wasted_rows += scheduler.slots.free
    return _figures(scheduler, recorder, submitted, rejected, clock.now)


def _figures(scheduler: Scheduler, recorder: _Recorder, submitted: int, rejected: int, seconds: float) -> Figures:
    load = scheduler.load()
    ttft, itl = sorted(recorder.ttft), sorted(recorder.itl)
    return Figures(
        requests=submitted,
        rejected=rejected,
        seconds=seconds,
        steps=load.steps,
        hit_rate=load.cached_tokens / load.prompt_tokens if load.prompt_tokens else 0.0,
        ttft_p50=percentile(ttft, 0.5),
        ttft_p99=percentile(ttft, 0.99),
        itl_p99=percentile(itl, 0.99),
        itl_max=itl[-1] if itl else 0.0,
        throughput=load.output_tokens / seconds if seconds else 0.0,
        computed_tokens=load.computed_tokens,
        preemptions=load.preemptions,
        evicted_pages=load.evicted_pages,
        wasted_slots=recorder.wasted_rows / (load.steps * scheduler.settings.max_running) if load.steps else 0.0,
    )


def percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of sorted values; 0.0 when there are none."""
    if not ordered:
        return 0.0
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scheduler.simulate", description="Scheduler on a virtual clock.")
    parser.add_argument("--mooncake", type=Path, help="trace to replay; without it, generated shared prefixes")
    parser.add_argument("--limit", type=int, help="only the first requests of the trace")
    parser.add_argument("--speed", type=float, default=1.0, help="how much faster the trace is replayed")
    workload = parser.add_argument_group("generated shared prefixes")
    workload.add_argument("--groups", type=int, default=64)
    workload.add_argument("--prompts-per-group", type=int, default=16)
    workload.add_argument("--system-tokens", type=int, default=2048)
    workload.add_argument("--question-tokens", type=int, default=128)
    workload.add_argument("--output-tokens", type=int, default=256)
    workload.add_argument("--rate", type=float, default=0.0, help="requests per second, 0 for all at once")
    workload.add_argument("--zipf", type=float, default=0.0, help="exponent of the groups' popularity")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--page-size", type=int, default=16)
    engine.add_argument("--pages", type=int, default=25_000)
    engine.add_argument("--max-running", type=int, default=256)
    engine.add_argument("--max-step-tokens", type=int, default=2048)
    engine.add_argument("--max-context", type=int, default=131_072)
    cost = parser.add_argument_group("cost model: seconds of a step = a + b*new_tokens + c*kv_tokens_read")
    for name, default in (("a", CostModel().a), ("b", CostModel().b), ("c", CostModel().c)):
        cost.add_argument(f"--{name}", type=float, default=default)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    options = _parser().parse_args(arguments)
    trace = (
        read_mooncake(options.mooncake, options.limit, options.speed)
        if options.mooncake
        else shared_prefixes(
            options.groups,
            options.prompts_per_group,
            options.system_tokens,
            options.question_tokens,
            options.output_tokens,
            options.rate,
            options.zipf,
        )
    )
    try:
        settings = Settings(
            page_size=options.page_size,
            pages=options.pages,
            max_running=options.max_running,
            max_step_tokens=options.max_step_tokens,
            max_context=options.max_context,
            max_waiting=1_000_000,
        )
        figures = simulate(trace, settings, CostModel(options.a, options.b, options.c))
    except (TraceError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in figures.__struct_fields__:
        value = getattr(figures, name)
        print(f"{name:16} {value:12.4f}" if isinstance(value, float) else f"{name:16} {value:12,}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
