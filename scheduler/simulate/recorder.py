"""What happened to each request, by the virtual clock, in bounded memory: histograms, and one number a request (TTFT).

Counts each request once when it is sent and once when it ends; whoever is reported of and not open is a ``KeyError``.
"""

from array import array
from collections.abc import Iterable

import msgspec

from radix.packing import TOKEN_BYTES
from scheduler.plan import Opened, Progress
from scheduler.simulate.histogram import Histogram
from scheduler.trace import TracedRequest

_UNSEEN = -1.0
# At most this share of a request's gaps may be above the limit: its p99.
_LATE_SHARE = 0.01


class SimulationError(Exception):
    """The scheduler did what it must not do: a request failed, or nothing moves although there is work."""


class Limits(msgspec.Struct, frozen=True):
    """What a good request keeps to, in seconds: time to first token; mean gap between its tokens; the 99th percentile
    of its gaps (with fewer than 100 gaps: the largest)."""

    ttft_s: float = float("inf")
    tpot_s: float = float("inf")
    itl_s: float = float("inf")


class Traffic:
    """What a router knows of a replica because it passes through it: requests sent there that have not ended, and the
    prompt tokens of those that have no token yet."""

    __slots__ = ("requests", "unanswered_tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.unanswered_tokens = 0


class TenantRecord:
    """Of one tenant. ``service``: uncached prompt tokens + weighted output tokens of the requests that ended;
    ``service_then``: ... before the last arrival of the whole trace."""

    __slots__ = ("requests", "service", "service_then", "ttft")

    def __init__(self) -> None:
        self.requests = 0
        self.service = 0.0
        self.service_then = 0.0
        self.ttft = Histogram()


class _Open:
    """A request that has not ended. ``late``: gaps above the limit."""

    __slots__ = ("arrival", "cached", "first", "last", "late", "output", "prompt", "tenant", "traffic")

    def __init__(self, traced: TracedRequest, tenant: TenantRecord, traffic: Traffic) -> None:
        self.arrival = traced.arrival
        self.prompt = len(traced.prompt) // TOKEN_BYTES
        self.output = traced.output
        self.tenant = tenant
        self.traffic = traffic
        self.cached = 0
        self.first = _UNSEEN
        self.last = _UNSEEN
        self.late = 0


class Recorder:
    """Of a whole run, however many replicas. ``output_weight``: service that one output token counts for."""

    def __init__(self, limits: Limits, output_weight: float) -> None:
        self.sent = self.rejected = self.expired = self.finished = self.good = 0
        self.last_arrival = 0.0
        self.last_end = 0.0
        self.ttft = array("d")
        self.tpot = Histogram()
        self.itl = Histogram()
        self.latency = Histogram()
        self.latency_per_token = Histogram()
        self.tenants: dict[str, TenantRecord] = {}
        self._limits = limits
        self._output_weight = output_weight
        self._open: dict[int, _Open] = {}

    @property
    def open(self) -> int:
        """Requests that were sent and have not ended."""
        return len(self._open)

    def send(self, request: int, traced: TracedRequest, traffic: Traffic) -> None:
        """A request was sent and accepted."""
        self._count(traced)
        state = self._open[request] = _Open(traced, self._tenant(traced.tenant), traffic)
        traffic.requests += 1
        traffic.unanswered_tokens += state.prompt

    def reject(self, traced: TracedRequest) -> None:
        """A request was sent and refused."""
        self._count(traced)
        self._tenant(traced.tenant)
        self.rejected += 1

    def arrivals_end(self) -> None:
        """Nothing more will be sent: until now everybody could have been served."""
        for tenant in self.tenants.values():
            tenant.service_then = tenant.service

    def opened(self, opened: Iterable[Opened]) -> None:
        """Requests were given rows, for the first time or again."""
        for row in opened:
            if row.request >= 0 and not row.resumed:
                self._open[row.request].cached = row.cached

    def take(self, progress: Iterable[Progress], before: float, now: float) -> list[int]:
        """A step of one replica was taken in at ``now``, the one before it at ``before``; returns who ended.

        About 0.25 us a token: most rows have had their last token in the step before, so one entry counts all.
        """
        states = self._open
        ended = []
        usual = 0
        late = now - before > self._limits.itl_s
        for entry in progress:
            state = states[entry.request]
            if not entry.tokens:
                self._end_early(entry)
                ended.append(entry.request)
                continue
            if state.last == before:
                usual += 1
                state.late += late
            else:
                self._unusual(state, now)
            state.last = now
            if entry.finish:
                self._end(entry, now)
                ended.append(entry.request)
        if usual:
            self.itl.add(now - before, usual)
        return ended

    def _unusual(self, state: _Open, now: float) -> None:
        """The first token, or the first after a pause."""
        if state.last == _UNSEEN:
            ttft = now - state.arrival
            state.first = now
            self.ttft.append(ttft)
            state.tenant.ttft.add(ttft)
            state.traffic.unanswered_tokens -= state.prompt
        else:
            gap = now - state.last
            self.itl.add(gap)
            state.late += gap > self._limits.itl_s

    def _end(self, entry: Progress, now: float) -> None:
        if entry.finish not in ("stop", "length"):
            raise SimulationError(f"request {entry.request} ended with {entry.finish}: {entry.message}")
        state = self._open.pop(entry.request)
        self.finished += 1
        self.last_end = max(self.last_end, now)
        gaps = state.output - 1
        tpot = (now - state.first) / gaps if gaps else 0.0
        if gaps:
            self.tpot.add(tpot)
        self.latency.add(now - state.arrival)
        self.latency_per_token.add((now - state.arrival) / state.output)
        limits = self._limits
        if state.first - state.arrival <= limits.ttft_s and tpot <= limits.tpot_s and state.late <= gaps * _LATE_SHARE:
            self.good += 1
        state.tenant.service += state.prompt - state.cached + self._output_weight * state.output
        state.traffic.requests -= 1

    def _end_early(self, entry: Progress) -> None:
        if entry.finish != "deadline":
            raise SimulationError(f"request {entry.request} ended with {entry.finish!r}: {entry.message}")
        state = self._open.pop(entry.request)
        self.expired += 1
        state.traffic.requests -= 1
        if state.first == _UNSEEN:
            state.traffic.unanswered_tokens -= state.prompt

    def _count(self, traced: TracedRequest) -> None:
        self.sent += 1
        self.last_arrival = traced.arrival
        self._tenant(traced.tenant).requests += 1

    def _tenant(self, name: str) -> TenantRecord:
        record = self.tenants.get(name)
        if record is None:
            record = self.tenants[name] = TenantRecord()
        return record
