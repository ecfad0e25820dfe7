"""Scheduler: submit / cancel / plan / commit. Asks its parts in a fixed order and keeps the running requests.

Continuous batching: every step holds a token of each running request that decodes and chunks of the prompts of others.
Pure: the forward pass is the caller's, time is an argument. One step is in flight at a time: ``plan``, then ``commit``.
"""

from bisect import insort

from radix.cache import PrefixCache
from radix.hashing import TOKEN_BYTES
from scheduler.admission import computed_by_another, fits, pages_for, reserved_pages
from scheduler.check import check_scheduler
from scheduler.chunking import StepBudget, TokenBudget
from scheduler.load import Load, Totals
from scheduler.plan import Chunk, Opened, Progress, StepPlan, StepResult
from scheduler.preemption import choose_victim
from scheduler.request import NewRequest, Request, RequestRejected
from scheduler.settings import Settings
from scheduler.slots import Slots
from scheduler.waiting import WaitingQueue

# Waiting requests looked at in one plan. Bounds the cost of a plan when a long queue waits for one prefix.
_CANDIDATES = 64


class SchedulerError(Exception):
    """``plan`` and ``commit`` were not called in turn, or a result does not belong to the plan."""


class Scheduler:
    """Decides who runs next. Not thread-safe.

    ``cache``: by default a new ``PrefixCache`` for ``settings``; pass one to key its digests with a secret.
    """

    def __init__(self, settings: Settings, cache: PrefixCache | None = None, budget: StepBudget | None = None) -> None:
        self.settings = settings
        self.cache = cache or PrefixCache(settings.pages, settings.page_size)
        if (self.cache.pool.total, self.cache.page_size) != (settings.pages, settings.page_size):
            raise ValueError("cache and settings disagree about the number or the size of pages")
        self.requests: dict[int, Request] = {}
        self.waiting = WaitingQueue()
        self.running: list[Request] = []  # in order of arrival
        self.slots = Slots(settings.max_running)
        self.in_flight: list[Request] = []
        self._plan: StepPlan | None = None
        self._budget = budget or TokenBudget(settings.max_step_tokens)
        self._totals = Totals()
        self._arrivals = 0

    @property
    def has_work(self) -> bool:
        """Whether any request has not ended."""
        return bool(self.requests)

    def submit(self, new: NewRequest, now: float) -> None:
        """Queue a request; raises ``RequestRejected`` and keeps nothing when it can never run, or the queue is full.

        O(prompt) for its digests.
        """
        self._refuse(new)
        request = Request(new, self.cache.key(new.prompt, new.namespace), self._arrivals, now)
        self._arrivals += 1
        self.requests[new.request] = request
        self.waiting.push(request)

    def cancel(self, request: int, now: float) -> bool:
        """End a request in any state; False when it is not known. Nothing is reported of it afterwards.

        In a step in flight its pages stay untouched until ``commit``; what it computed stays in the tree.
        """
        found = self.requests.get(request)
        if found is None or found.cancelled:
            return False
        if found.lease is None:
            self.waiting.remove(found)
            del self.requests[request]
        elif self._plan is not None and found.planned > found.computed:
            found.cancelled = True
        else:
            self._close(found)
        return True

    def waited(self, request: int) -> float:
        """Seconds from ``submit`` to the first step of a request that has not ended; raises ``KeyError`` for others."""
        found = self.requests[request]
        return max(found.started - found.arrival, 0.0)

    def plan(self, now: float) -> StepPlan | None:
        """The next step, or None when there is nothing to do. O(running + chunk tokens + admitted)."""
        if self._plan is not None:
            raise SchedulerError(f"step {self._plan.step} has not been committed")
        if not self.requests:
            return None
        preemptions = self._totals.preemptions
        chunks = self._plan_running()
        opened: list[Opened] = []
        # Who was just preempted must not come back at once; but a step without any chunk would be a step lost.
        if self.waiting and (preemptions == self._totals.preemptions or not chunks):
            if not chunks:
                self._budget.open()  # what was granted to those who then found no pages
            self._admit(now, chunks, opened)
        if not chunks:
            return None
        self._totals.steps += 1
        self._plan = StepPlan(self._totals.steps, chunks, opened, self.slots.drain_freed())
        self.in_flight = [self.requests[chunk.request] for chunk in chunks]
        return self._plan

    def commit(self, result: StepResult, now: float) -> list[Progress]:
        """Take in what the step in flight gave: one entry per request that got tokens or ended. O(chunks + tokens)."""
        plan = self._plan
        if plan is None:
            raise SchedulerError(f"result of step {result.step}, and no step is in flight")
        if result.step != plan.step or len(result.tokens) != len(plan.chunks):
            raise SchedulerError(
                f"step {result.step} came back with {len(result.tokens)} rows; "
                f"step {plan.step} with {len(plan.chunks)} is in flight"
            )
        self._plan = None
        failures = result.failures
        progress = []
        for request, tokens in zip(self.in_flight, result.tokens, strict=True):
            if failures and request.new.request in failures:
                entry = self._fail(request, failures[request.new.request])
            else:
                entry = self._advance(request, tokens)
            if entry is not None:
                progress.append(entry)
        self.in_flight = []
        return progress

    def load(self) -> Load:
        """Counters as they stand. O(1)."""
        pages, totals = self.cache.stats(), self._totals
        return Load(
            steps=totals.steps,
            running=len(self.running),
            waiting=len(self.waiting),
            pages_free=pages.free,
            pages_cached=pages.cached,
            pages_private=pages.private,
            prompt_tokens=totals.prompt_tokens,
            cached_tokens=totals.cached_tokens,
            computed_tokens=totals.computed_tokens,
            output_tokens=totals.output_tokens,
            preemptions=totals.preemptions,
            evicted_pages=pages.evicted,
        )

    def check(self) -> None:
        """Verify every invariant of scheduler and cache; ``InvariantError`` names what is broken. O(everything)."""
        self.cache.check()
        check_scheduler(self.requests, self.waiting, self.running, self.slots, self.in_flight, self.cache)

    # ------------------------------------------------------------------ submit

    def _refuse(self, new: NewRequest) -> None:
        settings = self.settings
        tokens, odd = divmod(len(new.prompt), TOKEN_BYTES)
        if odd or not tokens:
            raise RequestRejected(
                "invalid_request", f"the prompt has {len(new.prompt)} bytes: not whole tokens, or none"
            )
        if new.max_tokens < 1:
            raise RequestRejected("invalid_request", f"max_tokens must be at least 1, got {new.max_tokens}")
        if new.request in self.requests:
            raise RequestRejected("invalid_request", f"request id {new.request} is in use")
        if tokens + new.max_tokens > settings.max_context:
            raise RequestRejected(
                "context_length_exceeded",
                f"{tokens} prompt and {new.max_tokens} output tokens exceed the context of {settings.max_context}",
            )
        pages = pages_for(tokens + new.max_tokens - 1, settings.page_size)
        if pages > settings.pages:
            raise RequestRejected(
                "context_length_exceeded",
                f"{tokens} prompt tokens and {new.max_tokens} output tokens need {pages} KV pages of {settings.pages}",
            )
        if len(self.waiting) >= settings.max_waiting:
            raise RequestRejected("server_overloaded", f"{len(self.waiting)} requests are waiting already")

    # ------------------------------------------------------------------ plan

    def _plan_running(self) -> list[Chunk]:
        """Chunks of the running requests, the older before the younger; the younger are preempted for the older."""
        budget, running = self._budget, self.running
        budget.open()
        for request in running:
            if request.pending == 1:
                budget.charge(request.computed)
        chunks = []
        position = 0
        while position < len(running):
            request = running[position]
            count = request.pending
            if count > 1:
                count = budget.grant(count, request.computed)
            pages = self._extend(request, position, count) if count else None
            if pages is not None:
                chunks.append(self._chunk(request, count, pages))
            if position < len(running) and running[position] is request:
                position += 1
        return chunks

    def _extend(self, request: Request, position: int, count: int) -> list[int] | None:
        """New pages for the next ``count`` tokens; None when they are not to be had in this step."""
        lease = request.lease
        assert lease is not None  # running requests hold one
        held = len(lease.pages)
        page_size = self.settings.page_size
        if request.computed + count <= held * page_size:
            return []
        missing = pages_for(request.computed + count, page_size) - held
        while not self.cache.extend(lease, missing):
            victim = choose_victim(self.running, position)
            if victim is not None:
                self._preempt(victim)
                continue
            if position == 0:
                # Alone, and still too few: its duplicates are in the way. Let go, it continues on the tree's copies.
                self._preempt(request)
            return None
        return lease.pages[held:]

    def _chunk(self, request: Request, count: int, new_pages: list[int]) -> Chunk:
        start = request.computed
        end = start + count
        request.planned = end
        lease = request.lease
        assert lease is not None
        tokens = request.key.tokens
        self._totals.computed_tokens += count
        return Chunk(
            request.new.request,
            request.slot,
            start,
            bytes(tokens[start * TOKEN_BYTES : end * TOKEN_BYTES]),
            end * TOKEN_BYTES == len(tokens),
            new_pages,
            lease.cached - start if lease.cached > start else 0,
        )

    def _admit(self, now: float, chunks: list[Chunk], opened: list[Opened]) -> None:
        """Start waiting requests in their order while there are rows, pages and tokens left in the step."""
        if not self.slots.free:
            return
        reserved = reserved_pages(self.running, self.settings.page_size)
        candidates = [request for request, _ in zip(self.waiting, range(_CANDIDATES), strict=False)]
        for request in candidates:
            if not self.slots.free:
                return
            if computed_by_another(request, self.cache, self.running):
                continue
            chunk = self._start(request, reserved)
            if chunk is None:
                return  # no overtaking: whoever came first gets the next pages
            opened.append(self._open(request, now))
            chunks.append(chunk)
            reserved += reserved_pages((request,), self.settings.page_size)

    def _start(self, request: Request, reserved: int) -> Chunk | None:
        """Give a waiting request its lease, row and first chunk; None, and nothing changed, when there is no room."""
        lease = self.cache.acquire(request.key)
        computed = min(lease.cached, request.total - 1)
        count = 0
        if fits(request, lease, self.cache, reserved):
            count = self._budget.grant(request.total - computed, computed)
        if count == 0:
            self.cache.release(lease)
            return None
        request.lease = lease
        request.computed = computed
        held = len(lease.pages)
        missing = pages_for(computed + count, self.settings.page_size) - held
        if missing > 0 and not self.cache.extend(lease, missing):
            raise SchedulerError(f"request {request.new.request} was admitted without pages")
        self.waiting.remove(request)
        insort(self.running, request, key=_order)
        request.slot = self.slots.take()
        # The table of a new row begins with the pages that the cache had.
        return self._chunk(request, count, list(lease.pages))

    def _open(self, request: Request, now: float) -> Opened:
        lease = request.lease
        assert lease is not None
        cached = min(lease.cached, len(request.new.prompt) // TOKEN_BYTES)
        if request.started < 0:
            request.started = now
            self._totals.prompt_tokens += len(request.new.prompt) // TOKEN_BYTES
            self._totals.cached_tokens += cached
        return Opened(request.slot, request.new.request, request.new.sampling, cached, request.preempted)

    def _preempt(self, request: Request) -> None:
        """Back to the queue; what it computed stays in the tree as long as nobody needs the pages."""
        self._let_go(request)
        request.preempted = True
        request.computed = request.planned = 0
        self._totals.preemptions += 1
        self.waiting.push(request)

    # ------------------------------------------------------------------ commit

    def _advance(self, request: Request, tokens: list[int]) -> Progress | None:
        """The request's chunk was computed; append what it sampled and see whether it ends."""
        lease = request.lease
        assert lease is not None
        request.computed = request.planned
        self.cache.publish(lease, request.computed)
        if request.cancelled:
            self._close(request)
            return None
        if not tokens:
            return None
        new, taken, finish = request.new, tokens, ""
        for index, token in enumerate(tokens):
            request.key.tokens += token.to_bytes(TOKEN_BYTES, "little")
            request.output += 1
            if token in new.stop_tokens:
                finish = "stop"
            elif request.output == new.max_tokens:
                finish = "length"
            if finish:
                taken = tokens[: index + 1]
                break
        self._totals.output_tokens += len(taken)
        if finish:
            self._close(request)
        return Progress(new.request, taken, finish)

    def _fail(self, request: Request, message: str) -> Progress | None:
        """The request alone failed: nothing that this step wrote for it is kept."""
        request.planned = request.computed
        cancelled = request.cancelled
        self._close(request, keep_tail=False)
        return None if cancelled else Progress(request.new.request, [], "error", message)

    def _close(self, request: Request, keep_tail: bool = True) -> None:
        """The end of a running request."""
        self._let_go(request, keep_tail)
        del self.requests[request.new.request]

    def _let_go(self, request: Request, keep_tail: bool = True) -> None:
        """Give back the pages and the row of a running request."""
        lease = request.lease
        assert lease is not None
        self.running.remove(request)
        self.cache.release(lease, keep_tail)
        request.lease = None
        self.slots.give(request.slot)
        request.slot = -1


def _order(request: Request) -> int:
    return request.order
