"""Makes a step: who computes what. Decodes first, then prompts, then newcomers, as far as rows, pages and budget reach.

Knows running and waiting requests and the cache; what comes back of a step is the scheduler's business.
"""

from collections import deque
from collections.abc import Iterable

from radix.cache import PrefixCache
from scheduler.admission import Admission
from scheduler.cost import OnlineFit
from scheduler.fairness import Fairness, Tenant
from scheduler.forecast import Forecast
from scheduler.isolation import Isolation
from scheduler.load import Totals
from scheduler.open_step import OpenStep, Step
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


class Planner:
    """Makes one step at a time. ``draining``: it wants the steps in flight to come back before it plans another."""

    def __init__(
        self,
        settings: Settings,
        cache: PrefixCache,
        waiting: WaitingRoom,
        running: Running,
        fairness: Fairness,
        isolation: Isolation,
        admission: Admission,
        open_step: OpenStep,
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
        self.isolation = isolation
        self._admission = admission
        self._open_step = open_step
        self._forecast = forecast
        self._totals = totals
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
        made = self._open_step
        made.open(self.fit)
        left_out = self._hold_back(decodes, now)
        made.decode([request for request in decodes if request.tenant is not self._held_back] if left_out else decodes)
        # Who was just preempted must not come back at once; but a step without any chunk would be a step lost.
        self._prefill(now, prefills, admit=not preempted)
        if not made.chunks and left_out:  # nobody started after all
            self._express = False
            made.decode(left_out)
        if not made.chunks and not in_flight:
            self._unblock(now)
        self._gap_s = self._gap_s + self.fit.model.seconds(*made.work) if self._express else 0.0
        self.isolation.planned([tenant for tenant in self.waiting.tenants if tenant is not self._owed])
        return made.close()

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
            self._open_step.budget.narrow(aim_s - self._gap_s - isolation_s)
            return [request for request in decodes if request.tenant is self._held_back]
        if self._gap_s:
            self._open_step.budget.narrow(aim_s - self._gap_s)
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
        if not (self._express and self._open_step.chunks) and not self._open_step.budget.spent:
            self._open_step.budget.narrow(self.settings.isolation_s)
            self._serve(now, last, (), admit)

    def _serve(
        self, now: float, prefills: dict[Tenant, deque[Request]], without: Iterable[Tenant], admit: bool
    ) -> bool:
        """By tenant, the least served first, the running before newcomers, of whom those of ``without`` do not start.
        Whether somebody may still be admitted."""
        made = self._open_step
        stuck = set(without)  # tenants without pages as well: nothing more of theirs in this step
        looked = self.waiting.matches
        while not made.budget.spent and (prefills or admit):
            if self.waiting.matches - looked >= max(_MATCHES, self.settings.max_running):
                admit = False
            request = self._next(prefills, stuck, admit)
            if request is None:
                return admit
            if request.lease is not None:
                prefills[request.tenant].popleft()
                if not prefills[request.tenant]:
                    del prefills[request.tenant]
                moved = made.prefill(request)
                if not moved and request.total > request.planned and not made.budget.spent and not request.scored:
                    stuck.add(request.tenant)
                continue
            if not self.running.slots.free:
                self._ask_for_share(patient=self._forecast.next_row_s < _SOON_S)
                admit = False
                continue
            match made.start(request, now):
                case "" if request.tenant is self._owed:
                    self._owed = None
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
            self._open_step.open(self.fit)
            if oldest.lease is not None and self._open_step.prefill(oldest):
                return
        self._open_step.open(self.fit)
        self._prefill(now, {}, admit=True)
