"""Makes a step: who computes what. Decodes first, then prompts, then newcomers, as far as rows, pages and budget reach.

Knows running and waiting requests and the cache; what comes back of a step is the scheduler's business.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from radix.cache import PrefixCache
from radix.packing import PACKED_BYTES, TOKEN_BYTES
from scheduler.admission import Admission, pages_for
from scheduler.chunking import StepBudget
from scheduler.cost import OnlineFit, Work, attended_of, read_of
from scheduler.errors import SchedulerError
from scheduler.fairness import Fairness, Tenant
from scheduler.forecast import Forecast
from scheduler.isolation import Isolation
from scheduler.load import Totals
from scheduler.plan import Chunk, Opened
from scheduler.preemption import below_share, choose_for_share, choose_victim, pages_held
from scheduler.request import Request
from scheduler.running import Running
from scheduler.settings import Settings
from scheduler.waiting import WaitingRoom

# Matches looked up in one plan. Bounds what a plan costs when very many wait.
_MATCHES = 64  # or as many as there are rows
# Tenants whose first waiting request is looked at when the next one is chosen.
_TENANTS = 32

# A row that becomes free within so many seconds is not worth a preemption.
_SOON_S = 0.01

# Most tokens in one step of prompts that are scored: each needs logits as wide as the vocabulary.
_SCORED = 256

_UNKNOWN = bytes(TOKEN_BYTES)
_HIGH_BYTE = bytes(TOKEN_BYTES - PACKED_BYTES)  # of a packed id that is sent


class Step(NamedTuple):
    """``work``: as in ``CostModel.seconds``."""

    chunks: list[Chunk]
    opened: list[Opened]
    work: Work


class Planner:
    """Makes one step at a time. ``draining``: it wants the steps in flight to come back before it plans another."""

    def __init__(
        self,
        settings: Settings,
        cache: PrefixCache,
        waiting: WaitingRoom,
        running: Running,
        fairness: Fairness,
        admission: Admission,
        budget: StepBudget,
        fit: OnlineFit,
        forecast: Forecast,
        totals: Totals,
    ) -> None:
        self.draining = False
        self.settings = settings
        self.cache = cache
        self.waiting = waiting
        self.running = running
        self.fairness = fairness
        self.fit = fit
        self.isolation = Isolation(enabled=0 < settings.isolation_s < settings.inter_token_s)
        self._admission = admission
        self._budget = budget
        self._forecast = forecast
        self._totals = totals
        self._chunks: list[Chunk] = []
        self._opened: list[Opened] = []
        self._work = Work(0, 0, 0.0)
        self._scored = _SCORED  # tokens of prompts that may still be scored in this step
        self._reserved = -1  # pages to be kept for the running requests, -1: not counted in this step
        self._owed: Tenant | None = None  # has less than its share, and is the next to start
        self._patient = False  # it waits for a row; else somebody is to make room for it
        self._held_back: Tenant | None = None  # its work may only make short steps
        self._express = False  # the step that is being made leaves its decodes out
        self._gap_s = 0.0  # what the last steps take that left them out

    def step(self, now: float, in_flight: bool) -> Step | None:
        """The next step; None when nobody can move now. ``in_flight``: another one is running."""
        if self.draining and in_flight:
            return None
        self.draining = False
        if self._owed is not None and not self._owed.waiting:
            self._owed = None
        if self._owed is not None and not in_flight:
            self._yield(self._owed)
        preemptions = self._totals.preemptions
        decodes, prefills = self.running.sort()
        if not self._make_room(decodes, in_flight):
            return None
        if preempted := preemptions != self._totals.preemptions:
            decodes, prefills = self.running.sort()
        self._budget.open(self.fit.model, self.fit.ready)
        self._chunks, self._opened, self._reserved, self._scored = [], [], -1, _SCORED
        left_out = self._hold_back(decodes, now)
        self._decode([request for request in decodes if request.tenant is not self._held_back] if left_out else decodes)
        # Who was just preempted must not come back at once; but a step without any chunk would be a step lost.
        self._prefill(now, prefills, admit=not preempted)
        if not self._chunks and left_out:  # nobody started after all
            self._express = False
            self._decode(left_out)
        if not self._chunks and not in_flight:
            self._unblock(now)
        self._gap_s = self._gap_s + self.fit.model.seconds(*self._work) if self._express else 0.0
        self.isolation.planned([tenant for tenant in self.waiting.tenants if tenant is not self._owed])
        return Step(self._chunks, self._opened, self._work) if self._chunks else None

    # ------------------------------------------------------------------ one tenant held back for others

    def _hold_back(self, decodes: list[Request], now: float) -> list[Request]:
        """See whose work may only make short steps, and which decodes of it are left out of this one: all when somebody
        else's request starts. Their gap keeps to the aim: a step without them leaves time for a short one with them,
        which has so much less, and is not put off when there is no time left for both."""
        aim_s, isolation_s = self.settings.inter_token_s, self.settings.isolation_s
        self._held_back = self.isolation.held_back(now)
        self._express = (
            self._held_back is not None
            and self._gap_s + 2 * isolation_s <= aim_s
            and self.running.slots.free > 0
            and self.isolation.hurries(self.waiting.tenants)
        )
        if self._express:
            self._budget.narrow(aim_s - self._gap_s - isolation_s)
            return [request for request in decodes if request.tenant is self._held_back]
        if self._gap_s:
            self._budget.narrow(aim_s - self._gap_s)
        return []

    # ------------------------------------------------------------------ decodes

    def _make_room(self, decodes: list[Request], in_flight: bool) -> bool:
        """See to it that every decode gets its page, by preempting; False when steps in flight must come back first."""
        page_size = self.settings.page_size
        growing = [
            request
            for request in decodes
            if request.lease is not None and request.planned >= len(request.lease.pages) * page_size
        ]
        while growing and (candidates := self._short(growing)) is not None:
            if in_flight:
                self.draining = True
                return False
            victim = choose_victim(candidates, pages_held(self.running))
            # Alone, and still too few: its duplicates are in the way. Let go, it continues on the tree's copies.
            self.running.preempt(victim or growing[0])
            growing = [request for request in growing if request.lease is not None]
        return True

    def _short(self, growing: list[Request]) -> list[Request] | None:
        """Who may be preempted so that each of ``growing`` gets a page; None when there are enough."""
        cache = self.cache
        if cache.order.limited:
            wanted: dict[Tenant, int] = {}
            for request in growing:
                wanted[request.tenant] = wanted.get(request.tenant, 0) + 1
            for tenant, pages in wanted.items():
                if pages > cache.room(tenant.name):
                    mine = [request for request in self.running if request.tenant is tenant]
                    return mine[1:] or mine
        if len(growing) > cache.available:
            return self.running.younger
        return None

    def _decode(self, decodes: list[Request]) -> None:
        """A chunk of one token, known or not, for each. About 1.2 us a row: no calls but those that do the work."""
        page_size, extend = self.settings.page_size, self.cache.extend
        chunks = self._chunks
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
        self._budget.charge(len(chunks), read)
        self._totals.computed_tokens += len(chunks)
        self._work = Work(len(chunks), read, 0.0)

    # ------------------------------------------------------------------ plan: prefills and newcomers

    def _prefill(self, now: float, prefills: dict[Tenant, deque[Request]], admit: bool) -> None:
        """Give what is left of the step to prompts; who is held back comes last, into a short step only."""
        admit = admit and len(self.waiting) > 0 and self._admission.opens(len(self.running))
        held_back = self._held_back
        if held_back is None:
            self._serve(now, prefills, (), admit)
            return
        last = {held_back: prefills.pop(held_back)} if held_back in prefills else {}
        admit = self._serve(now, prefills, (held_back,), admit)
        if not (self._express and self._chunks) and not self._budget.spent:
            self._budget.narrow(self.settings.isolation_s)
            self._serve(now, last, (), admit)

    def _serve(
        self, now: float, prefills: dict[Tenant, deque[Request]], without: Iterable[Tenant], admit: bool
    ) -> bool:
        """By tenant, the least served first, the running before newcomers, of whom those of ``without`` do not start.
        Whether somebody may still be admitted."""
        stuck = set(without)  # tenants without pages as well: nothing more of theirs in this step
        looked = self.waiting.matches
        while not self._budget.spent and (prefills or admit):
            if self.waiting.matches - looked >= max(_MATCHES, self.settings.max_running):
                admit = False
            request = self._next(prefills, stuck, admit)
            if request is None:
                return admit
            if request.lease is not None:
                prefills[request.tenant].popleft()
                if not prefills[request.tenant]:
                    del prefills[request.tenant]
                chunk = self._chunk(request)
                if chunk is not None:
                    self._chunks.append(chunk)
                elif request.total - request.planned > 0 and not self._budget.spent and not request.scored:
                    stuck.add(request.tenant)
                continue
            if not self.running.slots.free:
                self._ask_for_share(patient=self._forecast.next_row_s < _SOON_S)
                admit = False
                continue
            match self._start(request, now):
                case "quota" | "scored":
                    stuck.add(request.tenant)
                case "pages":
                    self._ask_for_share(patient=False)
                    admit = False
                case "budget":
                    return admit
        return admit

    def _next(self, prefills: dict[Tenant, deque[Request]], stuck: set[Tenant], admit: bool) -> Request | None:
        """The running prefill or waiting request that is served next; None: nobody can be."""
        tenants = set(prefills)
        if admit:
            tenants |= set(self.waiting.contenders(_TENANTS, stuck))
        least = float("inf")
        best: Request | None = None
        best_key: tuple[int, ...] = ()
        for tenant in sorted(tenants, key=lambda tenant: (tenant is not self._owed, tenant.served, tenant.name)):
            if tenant.served > least + self.settings.quantum_tokens:
                break
            running = prefills.get(tenant)
            key: tuple[int, ...]
            if running:
                candidate, key = running[0], (-1, running[0].order)
            elif admit and tenant not in stuck:
                self.waiting.refresh(tenant, 8)
                head = self.waiting.head(tenant)
                if head is None:
                    continue
                candidate, key = head, head.place or ()
            else:
                continue
            if tenant is self._owed:
                return candidate
            least = min(least, tenant.served)
            if best is None or key < best_key:
                best, best_key = candidate, key
        return best

    def _chunk(self, request: Request, opening: bool = False) -> Chunk | None:
        """As many tokens of a running request as budget and pages allow; None for none. ``opening``: it has a new row,
        whose table begins with the pages that the cache had."""
        lease = request.held
        start = request.planned
        page_size = self.settings.page_size
        held = len(lease.pages)
        count = self._budget.grant(request.total - start, start)
        if request.scored:
            count = min(count, self._scored)
        if start + count > held * page_size:
            count = min(count, (held + self.cache.room(request.new.tenant)) * page_size - start)
        if start + count < request.total:  # end with a page, so that all of the chunk can be shared
            count = max((start + count) // page_size * page_size - start, min(count, page_size))
        if count <= 0:
            return None
        missing = pages_for(start + count, page_size) - held
        if missing > 0 and not self.cache.extend(lease, missing):
            raise SchedulerError(f"request {request.new.request} was given tokens without pages")
        self._budget.take(count, start)
        return self._compute(request, count, lease.pages[0 if opening else held :].tolist())

    def _compute(self, request: Request, count: int, new_pages: list[int]) -> Chunk:
        """The chunk of the next ``count`` known tokens: insert its blocks, charge the tenant for what is new."""
        lease = request.held
        start = request.planned
        if request.scored:
            self._scored -= count
        end = request.planned = start + count
        emits = end == request.total and request.new.max_tokens > 0
        request.unknown = int(emits)
        self.cache.schedule(lease, max(end, lease.computed))
        fresh = min(end, request.prompt_tokens) - request.charged
        if fresh > 0:
            self.fairness.charge(request.tenant, fresh)
            self.isolation.served(request.tenant, fresh)
            request.charged += fresh
        self._totals.computed_tokens += count
        new, read, attended = self._work
        self._work = Work(new + count, read + read_of(start, count), attended + attended_of(start, count))
        return Chunk(
            request.new.request,
            request.slot,
            start,
            request.key.tokens(start, end),
            emits,
            new_pages,
            lease.cached - start if lease.cached > start else 0,
        )

    def _start(self, request: Request, now: float) -> str:
        """Give a waiting request its lease, row and first chunk; an empty string then. Else nothing has changed, and
        why: ``budget``, ``pages``, ``quota``, ``scored`` (the step scores as many tokens as it may), or ``again`` when
        it has to be chosen anew."""
        if request.scored and self._scored <= 0:
            return "scored"
        cache, page_size = self.cache, self.settings.page_size
        ticket = request.ticket
        assert ticket is not None  # it waits
        room = cache.room(request.new.tenant)
        if self._reserved < 0:
            self._reserved = self._admission.reserved(self.running, page_size)
        reserved = self._reserved
        if len(self.running) and room - reserved <= request.blocked:
            return self._shortage(request)
        place = request.place
        if not self.waiting.match(request) or request.place != place:
            return "again"
        lease = cache.acquire(request.key)
        computed = 0 if request.scored else min(lease.cached, request.total - 1)
        left = cache.room(request.new.tenant) - (reserved if len(self.running) else 0)
        wanted = self._admission.wanted(request, page_size) if len(self.running) else pages_for(computed + 1, page_size)
        if wanted - len(lease.pages) > left:
            cache.release(lease)
            request.blocked = room - reserved
            return self._shortage(request)
        if not self._budget.grant(request.total - computed, computed):
            cache.release(lease)
            return "budget"
        self.running.enter(request, lease, computed)
        if request.tenant is self._owed:
            self._owed = None
        before = len(lease.pages)
        upfront = pages_for(self._admission.upfront(request), page_size) - before
        if upfront > 0 and not cache.extend(lease, upfront):
            raise SchedulerError(f"request {request.new.request} was admitted without pages")
        if not request.preempted:
            request.charged = 0 if request.scored else min(lease.cached, request.prompt_tokens)
        chunk = self._chunk(request, opening=True)
        if chunk is None:
            raise SchedulerError(f"request {request.new.request} was admitted without tokens")
        self._reserved += self._admission.reserved((request,), page_size)
        self._chunks.append(chunk)
        self._opened.append(self._open(request, now))
        return ""

    def _shortage(self, request: Request) -> str:
        """What keeps a request from starting: its tenant's quota, or the pool."""
        return "quota" if self.cache.room(request.new.tenant) < self.cache.available else "pages"

    def _open(self, request: Request, now: float) -> Opened:
        prompt = request.prompt_tokens
        cached = 0 if request.scored else min(request.held.cached, prompt)
        if request.started < 0:
            request.started = now
            if request.new.max_tokens:
                self._totals.prompt_tokens += prompt
                self._totals.cached_tokens += cached
                new = request.new
                self.cache.count(prompt, cached, new.system_tokens, new.history_tokens)
                self._forecast.started(prompt, cached)
        sampling = request.new.sampling
        known = request.key.tokens() if sampling.penalises or request.scored else b""
        return Opened(request.slot, request.new.request, sampling, cached, request.preempted, known, prompt)

    # ------------------------------------------------------------------ plan: preemption

    def _ask_for_share(self, patient: bool) -> None:
        """Newcomers find no row or no pages: see whether one of them is of a tenant that has less than its share while
        somebody has more. If so it is the next to start; unless it is ``patient``, because a row becomes free by itself
        in a moment, the steps in flight come back first and somebody is preempted for it."""
        here = self.fairness.here
        if len(here) < 2 or not self._admission.preempts:
            return
        rows = self.settings.max_running
        below = [t for t in self.waiting.contenders(_TENANTS, ()) if below_share(t, here, rows)]
        if not below:
            return
        running = list(self.running)
        held = pages_held(running)
        for tenant in below:
            if self._over_share(tenant, running, held) is not None:
                self._owed, self._patient = tenant, patient
                self.draining = not patient
                return

    def _over_share(self, tenant: Tenant, running: list[Request], held: dict[Tenant, int]) -> Request | None:
        settings = self.settings
        return choose_for_share(tenant, running, held, self.fairness.here, settings.max_running, settings.pages)

    def _yield(self, tenant: Tenant) -> None:
        """Preempt for the tenant that asked, if that is still called for; it is the first to be served then."""
        running = list(self.running)
        victim = self._over_share(tenant, running, pages_held(running))
        if victim is None:
            self._owed = None
        elif not self._patient:
            self.running.preempt(victim)

    def _unblock(self, now: float) -> None:
        """Nobody moved. If some run, prompts hold all pages between them: free pages until the oldest moves. If nobody
        does, whoever was just preempted may come back."""
        while len(self.running):
            oldest, others = self.running.oldest, self.running.younger
            if self.cache.room(oldest.new.tenant) < self.cache.available:  # its tenant's quota is what is short
                others = [request for request in others if request.tenant is oldest.tenant]
            self.running.preempt(choose_victim(others, pages_held(self.running)) or oldest)
            self._reserved = -1
            self._budget.open(self.fit.model, self.fit.ready)
            if oldest.lease is not None and (chunk := self._chunk(oldest)) is not None:
                self._chunks.append(chunk)
                return
        self._budget.open(self.fit.model, self.fit.ready)
        self._prefill(now, {}, admit=True)
