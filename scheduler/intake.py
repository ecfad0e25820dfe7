"""What is refused when it is handed in, and why. Reads the state of the engine; changes nothing.

A request is refused when it can never run, when its tenant's quota can never hold it, when the queue is full, or when
its turn would come later than it is willing to wait; the last two say when to try again.
"""

from collections.abc import Container

from msgspec.structs import replace

from radix.cache import PrefixCache
from radix.packing import TOKEN_BYTES
from radix.public import PUBLIC
from scheduler.admission import pages_for
from scheduler.cost import OnlineFit
from scheduler.fairness import Fairness, Tenant
from scheduler.forecast import Forecast
from scheduler.request import NewRequest, RequestRejected
from scheduler.running import Running
from scheduler.settings import Settings
from scheduler.waiting import WaitingRoom


class Intake:
    """The checks; ``forecast`` learns from requests that start and end."""

    def __init__(
        self,
        settings: Settings,
        cache: PrefixCache,
        waiting: WaitingRoom,
        running: Running,
        fairness: Fairness,
        fit: OnlineFit,
    ) -> None:
        self.settings = settings
        self.cache = cache
        self.waiting = waiting
        self.running = running
        self.fairness = fairness
        self.fit = fit
        self.forecast = Forecast(settings.max_running, settings.max_step_tokens)

    def expected_wait(self, tenant: str, prompt_tokens: int) -> float:
        """Seconds until the first token of a request handed in now, as far as can be told. O(tenants here)."""
        known = self.fairness.tenants.get(tenant) or Tenant(tenant, 1.0, 0.0)
        free = self.running.slots.free
        return self.forecast.seconds(known, self.fairness.here, prompt_tokens, free, self.fit.model)

    def check(self, new: NewRequest, open_requests: Container[int]) -> NewRequest:
        """The request as it is taken in; raises ``RequestRejected`` for what cannot be."""
        settings = self.settings
        tokens, odd = divmod(len(new.prompt), TOKEN_BYTES)
        if odd or not tokens:
            raise RequestRejected(
                "invalid_request", f"the prompt has {len(new.prompt)} bytes: not whole tokens, or none"
            )
        if new.max_tokens < 1:
            raise RequestRejected("invalid_request", f"max_tokens must be at least 1, got {new.max_tokens}")
        if new.request < 0:
            raise RequestRejected("invalid_request", f"request id {new.request} is negative")
        if new.request in open_requests:
            raise RequestRejected("invalid_request", f"request id {new.request} is in use")
        if tokens + new.max_tokens > settings.max_context:
            raise RequestRejected(
                "context_length_exceeded",
                f"{tokens} prompt and {new.max_tokens} output tokens exceed the context of {settings.max_context}",
            )
        new = self.cut(new)
        self._refuse_pages(new, tokens)
        self._refuse_wait(new, tokens)
        return new

    def cut(self, new: NewRequest) -> NewRequest:
        """An open-ended request with as many tokens as its tenant's quota and the pinned pages leave, at least one."""
        if not new.open_ended:
            return new
        most = self.most_pages(new.tenant) * self.settings.page_size - len(new.prompt) // TOKEN_BYTES + 1
        return replace(new, max_tokens=max(most, 1)) if most < new.max_tokens else new

    def most_pages(self, tenant: str) -> int:
        """That one request of ``tenant`` can ever have."""
        return min(self.settings.pages - self.cache.pins.hard_pages, self.cache.quota(tenant))

    def _refuse_pages(self, new: NewRequest, tokens: int) -> None:
        pages = pages_for(tokens + new.max_tokens - 1, self.settings.page_size)
        total = self.settings.pages - self.cache.pins.hard_pages
        if pages > total:
            raise RequestRejected(
                "context_length_exceeded",
                f"{tokens} prompt tokens and {new.max_tokens} output tokens need {pages} KV pages of {total}",
            )
        quota = self.cache.quota(new.tenant)
        if pages > quota:
            raise RequestRejected(
                "quota_exceeded",
                f"{tokens} prompt tokens and {new.max_tokens} output tokens need {pages} KV pages; "
                f"tenant {new.tenant!r} may have {quota}",
            )

    def _refuse_wait(self, new: NewRequest, tokens: int) -> None:
        settings = self.settings
        tenant = self.fairness.tenants.get(new.tenant)
        mine = tenant.waiting if tenant is not None else 0
        most = settings.max_waiting_per_tenant or settings.max_waiting
        nobodys = self.fairness.tenants.get(PUBLIC)  # prompts that are computed for nobody take nobody's place
        waiting = len(self.waiting) - (nobodys.waiting if nobodys is not None else 0)
        if waiting >= settings.max_waiting or mine >= most:
            full = f"the queue of tenant {new.tenant!r}" if mine >= most else "the queue"
            raise RequestRejected(
                "server_overloaded",
                f"{full} is full, with {mine if mine >= most else waiting} waiting",
                max(self.expected_wait(new.tenant, tokens), 1.0),
            )
        if new.queue_seconds > 0 and self.fit.ready:
            expected = self.expected_wait(new.tenant, tokens)
            if expected > new.queue_seconds:
                raise RequestRejected(
                    "server_overloaded",
                    f"its turn would come in about {expected:.1f} s, and it waits for at most {new.queue_seconds:g} s",
                    max(expected - new.queue_seconds, 1.0),
                )
