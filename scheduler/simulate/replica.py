"""One simulated engine: scheduler, step loop and device on a clock of its own. Moves only when told how far."""

import msgspec

from radix.packing import TOKEN_BYTES
from scheduler.cost import CostModel
from scheduler.loop import StepLoop
from scheduler.request import NewRequest, RequestRejected
from scheduler.scheduler import DEPTH, Scheduler
from scheduler.settings import Settings
from scheduler.simulate.device import SimulatedDevice, VirtualClock
from scheduler.simulate.recorder import Recorder, SimulationError, Traffic
from scheduler.trace import STOP, TracedRequest

_STOPS = frozenset({STOP})
# Memory is looked at every so many steps.
_SAMPLE_STEPS = 16


class Engine(msgspec.Struct, frozen=True):
    """One engine as it is simulated.

    cost           what a step takes; the scheduler knows it from the start
    depth          steps in flight: 1 or 2
    host_s         seconds of planning and of handling the outcome, per step
    lead_s         the next step is planned so long before the running one ends, so that who comes meanwhile is in it
    queue_s        longest wait until a request first runs, 0 for any
    learns         the scheduler is not told ``cost`` and fits its own, as a real one does
    """

    settings: Settings
    cost: CostModel = CostModel()
    depth: int = DEPTH
    host_s: float = 0.0
    lead_s: float = 0.003
    queue_s: float = 0.0
    learns: bool = False


class MemorySamples:
    """Page slots over time, in slot-seconds: ``allocated`` to running requests (pages of their own, and shared ones,
    each once); ``empty`` of these: no token in them, even after the steps in flight; ``tokens`` attended to."""

    __slots__ = ("_at", "allocated", "empty", "tokens")

    def __init__(self) -> None:
        self.allocated = self.empty = self.tokens = 0.0
        self._at = 0.0

    def take(self, scheduler: Scheduler, now: float) -> None:
        """What there is now stands for the time since the last sample. O(running)."""
        seconds, self._at = now - self._at, now
        page_size = scheduler.settings.page_size
        stats = scheduler.cache.stats()
        self.allocated += (stats.private + stats.cached - stats.evictable) * page_size * seconds
        empty = tokens = 0
        for request in scheduler.running:
            lease = request.held
            empty += len(lease.pages) * page_size - max(request.planned, lease.published * page_size)
            tokens += request.planned
        self.empty += empty * seconds
        self.tokens += tokens * seconds


class Replica:
    """``recorder`` is told what happens; several replicas may share one."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self.clock = VirtualClock()
        self.scheduler = Scheduler(engine.settings, cost=None if engine.learns else engine.cost)
        self.device = SimulatedDevice(
            self.clock, engine.cost, engine.settings.max_running, engine.host_s, engine.learns
        )
        self.loop = StepLoop(self.scheduler, self.device, self.clock, engine.depth)
        self.traffic = Traffic()
        self.memory = MemorySamples()
        self.idle_rows = 0
        self.taken_in = 0
        self._recorder = recorder
        self._queue_s = engine.queue_s
        self._lead_s = engine.lead_s
        self._before = 0.0

    def submit(self, request: int, traced: TracedRequest) -> bool:
        """A request arrives, not before the time that the replica has come to; False when it is refused."""
        self.clock.now = max(self.clock.now, traced.arrival)
        most = traced.max_tokens or traced.output
        new = NewRequest(
            request,
            traced.prompt,
            most,
            stop_tokens=_STOPS,
            tenant=traced.tenant,
            system_tokens=traced.system_tokens,
            history_tokens=traced.history_tokens,
            queue_seconds=self._queue_s,
        )
        try:
            self.scheduler.submit(new, traced.arrival)
        except RequestRejected:
            self._recorder.reject(traced)
            return False
        self.taken_in += 1
        self.device.lengths[request] = len(traced.prompt) // TOKEN_BYTES + traced.output
        self._recorder.send(request, traced, self.traffic)
        return True

    def advance(self, until: float) -> None:
        """Everything that begins before ``until``: the host plans whenever it may, else waits for the oldest step."""
        clock, loop, device = self.clock, self.loop, self.device
        while clock.now < until:
            if self._queue_s:
                self._end(self._recorder.take(self.scheduler.expire(clock.now), self._before, clock.now))
            if loop.in_flight and loop.may_launch and (due := device.first_end - self._lead_s) > clock.now:
                if due >= until:
                    return
                clock.now = due
            if loop.launch():
                continue
            if not loop.in_flight:
                if self.scheduler.has_work:
                    raise SimulationError("there is work, no step is in flight, and the scheduler plans nothing")
                return
            if device.first_end >= until:
                return
            self._collect()

    def _collect(self) -> None:
        outcome = self.loop.collect()
        if outcome is None:
            return
        now = self.clock.now
        recorder, scheduler = self._recorder, self.scheduler
        if outcome.opened:
            recorder.opened(outcome.opened)
        self._end(recorder.take(outcome.progress, self._before, now))
        self._before = now
        if scheduler.waiting:
            self.idle_rows += scheduler.slots.free
        if outcome.step % _SAMPLE_STEPS == 0:
            self.memory.take(scheduler, now)

    def _end(self, requests: list[int]) -> None:
        for request in requests:
            del self.device.lengths[request]
