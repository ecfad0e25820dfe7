"""The step that is being made: its chunks, and how requests get into it with pages, rows and a share of its budget.

Whose turn it is, is the planner's business.
"""

from typing import NamedTuple

from radix.cache import PrefixCache
from radix.packing import PACKED_BYTES, TOKEN_BYTES
from scheduler.admission import Admission, pages_for
from scheduler.chunking import StepBudget
from scheduler.cost import OnlineFit, Work, attended_of, read_of
from scheduler.errors import SchedulerError
from scheduler.fairness import Fairness
from scheduler.forecast import Forecast
from scheduler.isolation import Isolation
from scheduler.load import Totals
from scheduler.plan import Chunk, Opened
from scheduler.request import Request
from scheduler.running import Running
from scheduler.settings import Settings
from scheduler.waiting import WaitingRoom

# Most tokens in one step of prompts that are scored: each needs logits as wide as the vocabulary.
_SCORED = 256

_UNKNOWN = bytes(TOKEN_BYTES)
_HIGH_BYTE = bytes(TOKEN_BYTES - PACKED_BYTES)  # of a packed id that is sent


class Step(NamedTuple):
    """``work``: as in ``CostModel.seconds``."""

    chunks: list[Chunk]
    opened: list[Opened]
    work: Work


class OpenStep:
    """``budget``: what still fits. ``open`` begins another step; ``close`` is what became of it."""

    def __init__(
        self,
        settings: Settings,
        cache: PrefixCache,
        waiting: WaitingRoom,
        running: Running,
        fairness: Fairness,
        isolation: Isolation,
        admission: Admission,
        budget: StepBudget,
        forecast: Forecast,
        totals: Totals,
    ) -> None:
        self.budget = budget
        self.chunks: list[Chunk] = []
        self.opened: list[Opened] = []
        self.work = Work(0, 0, 0.0)
        self._settings = settings
        self._cache = cache
        self._waiting = waiting
        self._running = running
        self._fairness = fairness
        self._isolation = isolation
        self._admission = admission
        self._forecast = forecast
        self._totals = totals
        self._scored = _SCORED  # tokens of prompts that may still be scored in this step
        self._reserved = -1  # pages to be kept for the running requests, -1: not counted in this step

    def open(self, fit: OnlineFit) -> None:
        """Another step, empty, with a whole budget."""
        self.chunks, self.opened, self.work = [], [], Work(0, 0, 0.0)
        self._reserved, self._scored = -1, _SCORED
        self.budget.open(fit.model, fit.ready)

    def close(self) -> Step | None:
        """What is to be computed; None: nothing."""
        return Step(self.chunks, self.opened, self.work) if self.chunks else None

    def decode(self, decodes: list[Request]) -> None:
        """A chunk of one token, known or not, for each. About 1.2 us a row: no calls but those that do the work."""
        page_size, extend = self._settings.page_size, self._cache.extend
        chunks = self.chunks
        read = 0
        for request in decodes:
            lease = request.lease
            assert lease is not None  # running requests hold one
            start = request.planned
            held = len(lease.pages)
            pages: list[int] = []
            if start >= held * page_size:
                if not extend(lease, 1):
                    raise SchedulerError(f"request {request.new.request} decodes without a page")
                pages = lease.pages[held:].tolist()
            read += start
            known = request.total > start
            request.planned = start + 1
            request.unknown = 1
            new = request.new
            chunks.append(
                Chunk(
                    new.request,
                    request.slot,
                    start,
                    bytes(request.key.packed[start * PACKED_BYTES :] + _HIGH_BYTE) if known else _UNKNOWN,
                    new.max_tokens > 0,
                    pages,
                    lease.cached - start if lease.cached > start else 0,
                    not known,
                )
            )
        read += len(chunks)
        self.budget.charge(len(chunks), read)
        self._totals.computed_tokens += len(chunks)
        self.work = Work(len(chunks), read, 0.0)

    def prefill(self, request: Request, opening: bool = False) -> bool:
        """A chunk of as many known tokens of a running request as budget and pages allow; False for none. ``opening``:
        it has a new row, whose table begins with the pages that the cache had."""
        lease = request.held
        start = request.planned
        page_size = self._settings.page_size
        held = len(lease.pages)
        count = self.budget.grant(request.total - start, start)
        if request.scored:
            count = min(count, self._scored)
        if start + count > held * page_size:
            count = min(count, (held + self._cache.room(request.new.tenant)) * page_size - start)
        if start + count < request.total:  # end with a page, so that all of the chunk can be shared
            count = max((start + count) // page_size * page_size - start, min(count, page_size))
        if count <= 0:
            return False
        missing = pages_for(start + count, page_size) - held
        if missing > 0 and not self._cache.extend(lease, missing):
            raise SchedulerError(f"request {request.new.request} was given tokens without pages")
        self.budget.take(count, start)
        self._compute(request, count, lease.pages[0 if opening else held :].tolist())
        return True

    def _compute(self, request: Request, count: int, new_pages: list[int]) -> None:
        """A chunk of the next ``count`` known tokens: insert its blocks, charge the tenant for what is new."""
        lease = request.held
        start = request.planned
        if request.scored:
            self._scored -= count
        end = request.planned = start + count
        emits = end == request.total and request.new.max_tokens > 0
        request.unknown = int(emits)
        self._cache.schedule(lease, max(end, lease.computed))
        fresh = min(end, request.prompt_tokens) - request.charged
        if fresh > 0:
            self._fairness.charge(request.tenant, fresh)
            self._isolation.served(request.tenant, fresh)
            request.charged += fresh
        self._totals.computed_tokens += count
        new, read, attended = self.work
        self.work = Work(new + count, read + read_of(start, count), attended + attended_of(start, count))
        self.chunks.append(
            Chunk(
                request.new.request,
                request.slot,
                start,
                request.key.tokens(start, end),
                emits,
                new_pages,
                lease.cached - start if lease.cached > start else 0,
            )
        )

    def start(self, request: Request, now: float) -> str:
        """Give a waiting request its lease, row and first chunk; an empty string then. Else nothing has changed, and
        why: ``budget``, ``pages``, ``quota``, ``scored`` (the step scores as many tokens as it may), or ``again`` when
        it has to be chosen anew."""
        if request.scored and self._scored <= 0:
            return "scored"
        cache, page_size = self._cache, self._settings.page_size
        ticket = request.ticket
        assert ticket is not None  # it waits
        room = cache.room(request.new.tenant)
        if self._reserved < 0:
            self._reserved = self._admission.reserved(self._running, page_size)
        reserved = self._reserved
        if len(self._running) and room - reserved <= request.blocked:
            return self._shortage(request)
        place = request.place
        if not self._waiting.match(request) or request.place != place:
            return "again"
        lease = cache.acquire(request.key)
        computed = 0 if request.scored else min(lease.cached, request.total - 1)
        alone = len(self._running) == 0
        left = cache.room(request.new.tenant) - (0 if alone else reserved)
        wanted = pages_for(computed + 1, page_size) if alone else self._admission.wanted(request, page_size)
        if wanted - len(lease.pages) > left:
            cache.release(lease)
            request.blocked = room - reserved
            return self._shortage(request)
        if not self.budget.grant(request.total - computed, computed):
            cache.release(lease)
            return "budget"
        self._running.enter(request, lease, computed)
        before = len(lease.pages)
        upfront = pages_for(self._admission.upfront(request), page_size) - before
        if upfront > 0 and not cache.extend(lease, upfront):
            raise SchedulerError(f"request {request.new.request} was admitted without pages")
        if not request.preempted:
            request.charged = 0 if request.scored else min(lease.cached, request.prompt_tokens)
        if not self.prefill(request, opening=True):
            raise SchedulerError(f"request {request.new.request} was admitted without tokens")
        self._reserved += self._admission.reserved((request,), page_size)
        self.opened.append(self._open(request, now))
        return ""

    def _shortage(self, request: Request) -> str:
        """What keeps a request from starting: its tenant's quota, or the pool."""
        return "quota" if self._cache.room(request.new.tenant) < self._cache.available else "pages"

    def _open(self, request: Request, now: float) -> Opened:
        prompt = request.prompt_tokens
        cached = 0 if request.scored else min(request.held.cached, prompt)
        if request.started < 0:
            request.started = now
            if request.new.max_tokens:
                self._totals.prompt_tokens += prompt
                self._totals.cached_tokens += cached
                new = request.new
                self._cache.count(prompt, cached, new.system_tokens, new.history_tokens)
                self._forecast.started(prompt, cached)
        sampling = request.new.sampling
        known = request.key.tokens() if sampling.penalises or request.scored else b""
        return Opened(request.slot, request.new.request, sampling, cached, request.preempted, known, prompt)
