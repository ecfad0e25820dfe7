"""Scheduler: submit / cancel / plan / commit. Asks its parts in a fixed order and keeps the running requests.

Continuous batching: every step holds a token of each running request that decodes and chunks of the prompts of others.
Pure: the forward pass is the caller's, time is an argument.

Up to two steps are in flight: step n+1 may be planned while step n runs, before its tokens are known (``Chunk.chain``
stands for the token that step n samples). Steps run in the order of their plans, so what a plan lets go of may be
given to somebody else by the next plan: it is written only after the last step that used it.
"""

from collections import deque
from typing import NamedTuple

from radix.accounts import Quota
from radix.cache import PrefixCache
from radix.errors import CacheError, PinError
from radix.hashing import Key
from radix.packing import PACKED_BYTES, TOKEN_BYTES
from radix.pins import PinState
from radix.public import PUBLIC
from scheduler.admission import pages_for
from scheduler.arms import ARMS
from scheduler.check import check_scheduler
from scheduler.cost import CostModel, OnlineFit, Work
from scheduler.deadlines import Deadlines
from scheduler.errors import SchedulerError
from scheduler.fairness import Fairness, Tenant
from scheduler.intake import Intake
from scheduler.isolation import Isolation
from scheduler.load import Load, Totals
from scheduler.open_step import OpenStep
from scheduler.plan import Progress, StepPlan, StepResult
from scheduler.planner import Planner
from scheduler.request import NewRequest, Request
from scheduler.running import Running
from scheduler.settings import Settings
from scheduler.slots import Slots
from scheduler.waiting import WaitingRoom

DEPTH = 2
"""Most steps in flight."""

Flown = tuple[Request, int, int]
"""A chunk in flight: its request, the request's epoch (void when that has moved), tokens computed after it."""


class Flight(NamedTuple):
    """A step in flight. ``work``: as in ``CostModel.seconds``."""

    plan: StepPlan
    flown: list[Flown]
    work: Work


class Scheduler:
    """Decides who runs next. Not thread-safe.

    ``cache``: by default a new one for ``settings``; pass one to key its digests with a secret.
    ``cost``: what a step takes, when it is known beforehand; without, it is learned.
    """

    def __init__(self, settings: Settings, cache: PrefixCache | None = None, cost: CostModel | None = None) -> None:
        self.settings = settings
        arm = ARMS[settings.arm]
        self.cache = cache or arm.cache(settings.pages, settings.page_size)
        if (self.cache.pool.total, self.cache.page_size) != (settings.pages, settings.page_size):
            raise ValueError("cache and settings disagree about the number or the size of pages")
        if type(self.cache) is not arm.cache:
            raise ValueError(f"arm {settings.arm!r} needs a {arm.cache.__name__}")
        self.requests: dict[int, Request] = {}
        self.flights: deque[Flight] = deque()
        self.fairness = Fairness()
        self.fit = OnlineFit(cost)
        self._totals = Totals()
        self.waiting = WaitingRoom(self.cache, settings.ageing_s)
        self.slots = Slots(settings.max_running)
        self.running = Running(self.cache, self.waiting, self.slots, self._totals)
        self._intake = Intake(settings, self.cache, self.waiting, self.running, self.fairness, self.fit)
        self._admission = arm.admission()
        self._isolation = Isolation(enabled=0 < settings.isolation_s < settings.inter_token_s)
        open_step = OpenStep(
            settings,
            self.cache,
            self.waiting,
            self.running,
            self.fairness,
            self._isolation,
            self._admission,
            arm.budget(settings.max_step_tokens, settings.inter_token_s, settings.page_size),
            self._intake.forecast,
            self._totals,
        )
        self._planner = Planner(
            settings,
            self.cache,
            self.waiting,
            self.running,
            self.fairness,
            self._isolation,
            self._admission,
            open_step,
            self.fit,
            self._intake.forecast,
            self._totals,
        )
        self._deadlines = Deadlines()
        self._arrivals = 0
        self._warmings = 0

    # ------------------------------------------------------------------ requests

    @property
    def has_work(self) -> bool:
        """Whether any request has not ended."""
        return bool(self.requests)

    def submit(self, new: NewRequest, now: float) -> None:
        """Queue a request; raises ``RequestRejected`` and keeps nothing when it can never run, the queue is full, or
        its turn would come after its deadline.

        O(prompt) for its digests.
        """
        self._intake.check(new, self.requests)
        self._accept(new, self.cache.key(new.prompt, new.tenant, new.namespace), now)

    def cancel(self, request: int, now: float) -> bool:
        """End a request in any state; False when it is not known. Nothing is reported of it afterwards.

        While steps in flight compute it its pages stay untouched; what it computed stays in the tree.
        """
        found = self.requests.get(request)
        if found is None or found.cancelled:
            return False
        if found.lease is None:
            self.waiting.remove(found)
            self._end(found)
        elif found.flights:
            found.cancelled = True
        else:
            self._close(found)
        return True

    def expire(self, now: float) -> list[Progress]:
        """End the requests whose time is over: of queueing, or in total. O(those)."""
        ended = []
        for request, to_start in self._deadlines.due(now):
            found = self.requests.get(request)
            if found is None or found.cancelled or (to_start and found.started >= 0):
                continue
            self.cancel(request, now)
            what = "it has not started in time" if to_start else "it has not ended in time"
            ended.append(Progress(request, [], "deadline", what))
        return ended

    def waited(self, request: int) -> float:
        """Seconds from ``submit`` to the first step of a request that has not ended; raises ``KeyError`` for others."""
        found = self.requests[request]
        return max(found.started - found.arrival, 0.0)

    def predicted_s(self) -> float:
        """Seconds that the oldest step in flight takes, by the fitted model; 0 when none is. O(chunks)."""
        if not self.flights:
            return 0.0
        return self.fit.model.seconds(*self.flights[0].work)

    # ------------------------------------------------------------------ tenants, public prompts, pins

    def set_tenant(self, tenant: str, weight: float = 1.0, quota: Quota | None = None) -> None:
        """Give a tenant its weight and its quota of pages. Raises ``ValueError`` or ``CacheError``."""
        self.fairness.set_weight(tenant, weight)
        self.cache.set_quota(tenant, quota or Quota())

    def publish_prompt(self, name: str, prompt: bytes, now: float, pin: str = "soft") -> PinState | None:
        """Make a system prompt public, pin it (``"soft"``, ``"hard"``, or ``""`` for not at all), and compute it when
        it is not there. Raises ``CacheError`` for less than a page, ``PinError`` beyond the budget."""
        if pin not in ("", "soft", "hard"):
            raise PinError(f"a pin is soft or hard, not {pin!r}")
        page_size = self.settings.page_size
        whole = prompt[: len(prompt) // (page_size * TOKEN_BYTES) * page_size * TOKEN_BYTES]
        tokens = len(whole) // TOKEN_BYTES
        free = self.settings.pages - self.cache.pins.hard_pages
        if tokens > min(self.settings.max_context, free * page_size):
            raise CacheError(f"a prompt of {tokens} tokens does not fit into the context or the pages of this engine")
        if not whole:
            tokens = len(prompt) // TOKEN_BYTES
            raise CacheError(f"a public prompt needs at least a page of {page_size} tokens, got {tokens}")
        state = None
        key = self.cache.public.key(whole)
        if pin:
            longest = max((request.limit for request in self.requests.values()), default=0)
            left = self.settings.pages - self.cache.pins.hard_pages - len(key.digests)
            if pin == "hard" and pages_for(longest, page_size) > left:
                raise PinError(f"pin {name!r} would leave {left} pages, too few for a request that is open")
            state = self.cache.pin(name, key, hard=pin == "hard")
        self.cache.register(whole)
        self._warm(key, now)
        return state

    def withdraw_prompt(self, name: str, prompt: bytes) -> None:
        """The prompt is no longer public nor pinned; requests that run keep what they have."""
        width = self.settings.page_size * TOKEN_BYTES
        self.cache.unregister(prompt[: len(prompt) // width * width])
        if name in self.cache.pins.pins:
            self.cache.unpin(name)

    # ------------------------------------------------------------------ plan and commit

    def plan(self, now: float) -> StepPlan | None:
        """The next step, or None when nothing can be planned now: there is nothing to do, or steps in flight must come
        back first. O(running + chunk tokens + admitted)."""
        if len(self.flights) >= DEPTH:
            raise SchedulerError(f"step {self.flights[0].plan.step} has not been committed")
        if not self.requests:
            return None
        step = self._planner.step(now, in_flight=len(self.flights) > 0)
        if step is None:
            return None
        self._totals.steps += 1
        plan = StepPlan(self._totals.steps, step.chunks, step.opened, self.slots.drain_freed())
        requests = self.requests
        flown: list[Flown] = []
        for chunk in step.chunks:
            request = requests[chunk.request]
            request.flights += 1
            flown.append((request, request.epoch, request.planned))
        self.flights.append(Flight(plan, flown, step.work))
        return plan

    def commit(self, result: StepResult, now: float, seconds: float = 0.0) -> list[Progress]:
        """Take in what the oldest step in flight gave: one entry per request that got tokens or ended.

        ``seconds``: how long it ran, 0 when that says nothing (it failed, the machine slept). O(chunks + tokens).
        """
        if not self.flights:
            raise SchedulerError(f"result of step {result.step}, and no step is in flight")
        plan, flown, work = self.flights[0]
        if result.step != plan.step or len(result.tokens) != len(plan.chunks):
            raise SchedulerError(
                f"step {result.step} came back with {len(result.tokens)} rows; "
                f"step {plan.step} with {len(plan.chunks)} is in flight"
            )
        self.flights.popleft()
        progress = self._fall(result, flown) if result.failures else []
        if seconds > 0 and not result.failures:
            self.fit.observe(seconds, *work)
        served: dict[Tenant, int] = {}
        for (request, epoch, end), tokens in zip(flown, result.tokens, strict=True):
            if request.epoch == epoch and (entry := self._advance(request, end, tokens, now)) is not None:
                if result.logprobs or result.prompt_logprobs:
                    entry = _with_logprobs(entry, result)
                progress.append(entry)
                tenant = request.tenant
                served[tenant] = served.get(tenant, 0) + len(entry.tokens)
        for tenant, count in served.items():
            self._totals.output_tokens += count
            self.fairness.charge(tenant, self.settings.output_weight * count)
            self._isolation.served(tenant, self.settings.output_weight * count)
        return progress

    def load(self) -> Load:
        """Counters as they stand. O(1)."""
        return self._totals.load(len(self.running), len(self.waiting), self.cache.stats())

    def check(self) -> None:
        """Verify every invariant of scheduler and cache; ``InvariantError`` names what is broken. O(everything)."""
        self.cache.check()
        check_scheduler(self)

    def _accept(self, new: NewRequest, key: Key, now: float) -> None:
        request = Request(new, key, self.fairness.arrive(new.tenant), self._arrivals, now)
        self._arrivals += 1
        self.requests[new.request] = request
        self.waiting.push(request)
        if new.max_tokens:
            self._isolation.arrived(request.tenant, now)
        if new.queue_seconds > 0:
            self._deadlines.add(new.request, now + new.queue_seconds, to_start=True)
        if new.seconds > 0:
            self._deadlines.add(new.request, now + new.seconds, to_start=False)
        self._deadlines.prune(self.requests)

    def _warm(self, key: Key, now: float) -> None:
        """Compute a public prompt for nobody in particular: a request that ends with its prompt, with an id of its own
        below 0. Nothing is reported of it."""
        if self.cache.peek(key) < len(key):
            self._warmings += 1
            self._accept(NewRequest(-self._warmings, key.tokens(), 0, tenant=PUBLIC), key, now)

    # ------------------------------------------------------------------ commit

    def _advance(self, request: Request, end: int, tokens: list[int], now: float) -> Progress | None:
        """The request's chunk was computed; append what it sampled and see whether it ends."""
        lease = request.lease
        assert lease is not None  # running requests hold one
        request.flights -= 1
        if request.cancelled:
            self._advance_cancelled(request, end)
            return None
        request.computed = end
        self.cache.publish(lease, end if end > lease.computed else lease.computed)
        new = request.new
        if not tokens:
            if new.max_tokens == 0 and end == request.total:
                self._close(request)  # a prompt that was to be computed for nobody is there now
            return None
        if not request.flights:
            request.unknown = 0
        finish = ""
        for index, token in enumerate(tokens, 1):
            request.key.packed += token.to_bytes(PACKED_BYTES, "little")
            request.output += 1
            request.total += 1
            if token in new.stop_tokens:
                finish = "stop"
            elif request.output == new.max_tokens:
                finish = "length"
            if finish:
                self._admission.ended(request)
                self._intake.forecast.ended(now - request.started)
                self._close(request)
                return Progress(new.request, tokens[:index], finish)
        return Progress(new.request, tokens)

    def _advance_cancelled(self, request: Request, end: int) -> None:
        """Its computed tokens are shared; it does not learn the tokens that it samples, and ends with its last step."""
        request.computed = min(end, request.total)
        self.cache.publish(request.held, max(request.computed, request.held.computed))
        if not request.flights:
            self._close(request)

    def _close(self, request: Request) -> None:
        """The end of a running request."""
        self.running.release(request)
        self._end(request)

    def _fall(self, result: StepResult, flown: list[Flown]) -> list[Progress]:
        """Requests that failed end alone, and nothing that steps in flight write for them is kept. Whoever built on
        what they were to write starts again."""
        failed = [
            request for request, epoch, _ in flown if request.epoch == epoch and request.new.request in result.failures
        ]
        ends = []
        for request in failed:
            if request.lease is not None:  # else it has fallen with another one
                for other in self.running.fall(request):
                    if other.cancelled:
                        self._end(other)
                    elif other not in failed:
                        self.running.restart(other)
            new = request.new
            if new.request in self.requests:
                self._end(request)
            if not request.cancelled and new.max_tokens:
                ends.append(Progress(new.request, [], "error", result.failures[new.request]))
        return ends

    def _end(self, request: Request) -> None:
        del self.requests[request.new.request]
        self.fairness.leave(request.tenant)


def _with_logprobs(entry: Progress, result: StepResult) -> Progress:
    return Progress(
        entry.request,
        entry.tokens,
        entry.finish,
        logprobs=result.logprobs.get(entry.request, ())[: len(entry.tokens)],
        prompt_logprobs=result.prompt_logprobs.get(entry.request, ()),
    )
