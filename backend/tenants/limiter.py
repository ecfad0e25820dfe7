"""Holds tenants to their limits. Pure: nothing blocks, nothing is read, time is an argument.

``now`` is in seconds of a clock that never jumps, ``wall`` Unix time. Rates are token buckets that hold a minute's
worth. A prompt is paid for when it is admitted, what turns out to be cached is given back by weight; output is paid for
as it ends, into debt if need be, and a tenant in debt waits until it is paid: over a long time nobody gets more than
the rate, and nobody has to guess how long an answer will be.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from backend.errors import BanyanError
from backend.tenants.limits import TenantLimits

MINUTE = 60.0


class LimitError(BanyanError):
    """A limit is reached: 429. ``retry_after_s`` 0 where waiting does not help."""

    def __init__(self, message: str, *, code: str = "rate_limit_exceeded", retry_after_s: float = 0.0) -> None:
        super().__init__(message, code=code, status=429, retry_after_s=retry_after_s)


class Bucket:
    """``rate`` a minute, at most a minute's worth at once; starts full. ``level`` may fall below 0: debt."""

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._level = float(rate)
        self._at = now

    def level(self, now: float) -> float:
        """What there is."""
        if now > self._at:
            self._level = min(self.rate, self._level + (now - self._at) * self.rate / MINUTE)
            self._at = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` is there; 0 when it is."""
        return max(0.0, (amount - self.level(now)) * MINUTE / self.rate)

    def take(self, amount: float, now: float) -> None:
        """Into debt if need be; a negative ``amount`` is given back."""
        self._level = min(self.rate, self.level(now) - amount)

    def resize(self, rate: int, now: float) -> None:
        """Another rate; what was used stays used."""
        used = self.rate - self.level(now)
        self.rate = rate
        self._level = rate - used


class _Budget:
    """``before``: charged before this process counted, in the period that began at ``begins``; 0 until ``loaded``."""

    def __init__(self, begins: int, before: int = 0, *, loaded: bool = False) -> None:
        self.begins = begins
        self.before = before
        self.loaded = loaded
        self.since = 0.0


class _Account:
    """What one tenant uses now."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.streams = 0
        self.queued = 0
        self.sockets: dict[str, int] = {}
        self.budget: _Budget | None = None


class Limiter:
    """``limits_of``: the limits of a tenant as they are now."""

    def __init__(self, limits_of: Callable[[str], TenantLimits]) -> None:
        self._limits_of = limits_of
        self._accounts: dict[str, _Account] = {}

    # ---- requests ------------------------------------------------------------------------------------

    def admit(self, tenant: str, input_tokens: int, now: float, wall: float) -> None:
        """Pay for a prompt. Raises ``LimitError``, having taken nothing."""
        limits, account = self._limits_of(tenant), self._account(tenant)
        self._refuse_spent(tenant, limits, wall)
        self.refuse_streams(tenant)
        needs = {"requests": 1.0, "input tokens": float(input_tokens), "output tokens": 1.0}
        for what, bucket in self._buckets(account, limits, now).items():
            if what == "input tokens" and input_tokens > bucket.rate:
                raise BanyanError(
                    f"the prompt has {input_tokens} tokens; this tenant may send {bucket.rate} a minute",
                    code="request_too_large",
                    status=413,
                )
            if wait := bucket.wait(needs[what], now):
                raise LimitError(f"this tenant's limit of {bucket.rate} {what} a minute is reached", retry_after_s=wait)
        for what, bucket in account.buckets.items():
            if what != "output tokens":
                bucket.take(needs[what], now)

    def refuse_streams(self, tenant: str) -> None:
        """Raises ``LimitError`` when a further response may not begin."""
        limits, account = self._limits_of(tenant), self._account(tenant)
        if limits.streams and account.streams >= limits.streams:
            raise LimitError(f"this tenant has {account.streams} responses in flight, its limit", retry_after_s=1)
        if limits.queued and account.queued >= limits.queued:
            raise LimitError(f"this tenant has {account.queued} requests waiting, its limit", retry_after_s=1)

    def begin(self, tenant: str) -> "Running":
        """A response is in flight. Raises ``LimitError`` when it may not be."""
        self.refuse_streams(tenant)
        return Running(self, tenant)

    def headers(self, tenant: str, now: float, wall: float) -> dict[str, str]:
        """OpenAI's ``x-ratelimit-*``, of the limits that there are; tokens: of input or output, the scarcer."""
        limits, account = self._limits_of(tenant), self._account(tenant)
        buckets = self._buckets(account, limits, now)
        scarce = min(
            (b for what, b in buckets.items() if what != "requests"), key=lambda b: b.level(now) / b.rate, default=None
        )
        found: dict[str, str] = {}
        for what, bucket in (("requests", buckets.get("requests")), ("tokens", scarce)):
            if bucket is not None:
                found[f"x-ratelimit-limit-{what}"] = str(bucket.rate)
                found[f"x-ratelimit-remaining-{what}"] = str(max(0, int(bucket.level(now))))
                found[f"x-ratelimit-reset-{what}"] = duration(bucket.wait(bucket.rate, now))
        if limits.soft_budget_tokens and self.spent(tenant, wall) >= limits.soft_budget_tokens:
            found["x-banyan-budget"] = "soft-limit-reached"
        return found

    # ---- budgets -------------------------------------------------------------------------------------

    def load(self, tenant: str, begins: int, charged: int) -> None:
        """``charged`` tokens are recorded of the period that began at ``begins``: counting goes on from there."""
        self._account(tenant).budget = _Budget(begins, charged, loaded=True)

    def is_loaded(self, tenant: str, begins: int) -> bool:
        """Whether ``load`` was called for this period."""
        budget = self._account(tenant).budget
        return budget is not None and budget.loaded and budget.begins == begins

    def spent(self, tenant: str, wall: float) -> int:
        """Charged tokens of the period."""
        budget = self._period(tenant, wall)
        return budget.before + int(budget.since)

    # ---- sockets -------------------------------------------------------------------------------------

    def open_socket(self, tenant: str, key_id: str) -> None:
        """Count a socket. Raises ``LimitError`` when it is one too many."""
        limits, sockets = self._limits_of(tenant), self._account(tenant).sockets
        here, all_ = sockets.get(key_id, 0), sum(sockets.values())
        for limit, count, whose in ((limits.sockets_per_key, here, "key"), (limits.sockets, all_, "tenant")):
            if limit and count >= limit:
                raise LimitError(
                    f"this {whose} has {count} sockets open, its limit",
                    code="websocket_connection_limit_reached",
                    retry_after_s=1,
                )
        sockets[key_id] = here + 1

    def close_socket(self, tenant: str, key_id: str) -> None:
        """The end of what ``open_socket`` counted."""
        sockets = self._account(tenant).sockets
        sockets[key_id] -= 1
        if not sockets[key_id]:
            del sockets[key_id]

    def check(self) -> None:
        """Raises ``ValueError`` when a count is impossible."""
        for tenant, account in self._accounts.items():
            if not 0 <= account.queued <= account.streams or any(count < 1 for count in account.sockets.values()):
                raise ValueError(f"{tenant}: {account.queued} queued, {account.streams} streams, {account.sockets}")

    # ---- parts ---------------------------------------------------------------------------------------

    def account_of(self, tenant: str) -> _Account:
        """For ``Running``."""
        return self._account(tenant)

    def settle(self, tenant: str, refund: float, output: int, now: float) -> None:
        """Give back input tokens, take output tokens."""
        account = self._account(tenant)
        buckets = self._buckets(account, self._limits_of(tenant), now)
        if refund and "input tokens" in buckets:
            buckets["input tokens"].take(-refund, now)
        if output and "output tokens" in buckets:
            buckets["output tokens"].take(output, now)

    def charge(self, tenant: str, tokens: float, wall: float) -> None:
        """Of the budget."""
        self._period(tenant, wall).since += tokens

    def cached_weight(self, tenant: str) -> float:
        """What a cached prompt token of this tenant counts for."""
        return self._limits_of(tenant).cached_weight

    def _account(self, tenant: str) -> _Account:
        account = self._accounts.get(tenant)
        return account if account is not None else self._accounts.setdefault(tenant, _Account())

    def _buckets(self, account: _Account, limits: TenantLimits, now: float) -> dict[str, Bucket]:
        """Those of the limits that there are; made and resized as the limits change."""
        rates = {
            "requests": limits.requests_per_minute,
            "input tokens": limits.input_tokens_per_minute,
            "output tokens": limits.output_tokens_per_minute,
        }
        for what, rate in rates.items():
            bucket = account.buckets.get(what)
            if not rate:
                account.buckets.pop(what, None)
            elif bucket is None:
                account.buckets[what] = Bucket(rate, now)
            elif bucket.rate != rate:
                bucket.resize(rate, now)
        return account.buckets

    def _period(self, tenant: str, wall: float) -> _Budget:
        account = self._account(tenant)
        begins = period_begin(self._limits_of(tenant).budget_period, wall)
        if account.budget is None or account.budget.begins != begins:
            account.budget = _Budget(begins)
        return account.budget

    def _refuse_spent(self, tenant: str, limits: TenantLimits, wall: float) -> None:
        if limits.hard_budget_tokens and self.spent(tenant, wall) >= limits.hard_budget_tokens:
            period = {"day": "of this day", "month": "of this month", "all": ""}[limits.budget_period]
            raise LimitError(
                f"this tenant's budget of {limits.hard_budget_tokens} tokens {period}".rstrip() + " is spent",
                code="insufficient_quota",
            )


class Running:
    """One response in flight: counted from its making to ``end``, which may be called again."""

    def __init__(self, limiter: Limiter, tenant: str) -> None:
        self._limiter = limiter
        self._tenant = tenant
        self._queued = True
        self._open = True
        account = limiter.account_of(tenant)
        account.streams += 1
        account.queued += 1

    def started(self, cached_tokens: int, now: float) -> None:
        """The engine runs it; ``cached_tokens`` of the prompt that was paid for are given back by weight."""
        if self._open and self._queued:
            self._leave_queue()
            refund = cached_tokens * (1 - self._limiter.cached_weight(self._tenant))
            self._limiter.settle(self._tenant, refund, 0, now)

    def end(self, input_tokens: int, cached_tokens: int, output_tokens: int, now: float, wall: float) -> int:
        """It is over. Charged tokens: what this cost of the budget; 0 when it had ended, or never began."""
        if not self._open:
            return 0
        begun, self._open = not self._queued, False
        self._leave_queue()
        self._limiter.account_of(self._tenant).streams -= 1
        if not begun:
            self._limiter.settle(self._tenant, input_tokens, 0, now)  # nothing was computed
            return 0
        weight = self._limiter.cached_weight(self._tenant)
        charged = round(input_tokens - cached_tokens * (1 - weight)) + output_tokens
        self._limiter.settle(self._tenant, 0, output_tokens, now)
        self._limiter.charge(self._tenant, charged, wall)
        return charged

    def _leave_queue(self) -> None:
        if self._queued:
            self._queued = False
            self._limiter.account_of(self._tenant).queued -= 1


def period_begin(period: str, wall: float) -> int:
    """Unix time at which the budget's period that holds ``wall`` began.

    >>> period_begin("month", 1795792785)
    1793491200
    """
    if period == "all":
        return 0
    day = datetime.fromtimestamp(wall, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((day.replace(day=1) if period == "month" else day).timestamp())


def duration(seconds: float) -> str:
    """As OpenAI writes it.

    >>> duration(0.012), duration(1), duration(360.5)
    ('12ms', '1s', '6m0.5s')
    """
    if seconds < 1:
        return f"{round(1000 * seconds)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return (f"{int(minutes)}m" if minutes else "") + f"{round(rest, 3):g}s"
