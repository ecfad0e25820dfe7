"""What a request is: as it is handed in (``NewRequest``), and as the scheduler keeps it (``Request``)."""

from typing import TYPE_CHECKING

import msgspec

from radix.hashing import Key
from radix.inflight import Ticket
from radix.lease import Lease
from radix.packing import TOKEN_BYTES
from scheduler.plan import Sampling

if TYPE_CHECKING:
    from scheduler.fairness import Tenant


class RequestRejected(Exception):
    """A request was refused when it was handed in; nothing of it is kept.

    ``code``: ``context_length_exceeded`` (can never fit), ``quota_exceeded`` (needs more pages than its tenant may ever
    have), ``server_overloaded`` (the queue is full, or its turn would come too late) or ``invalid_request``.
    ``retry_after_s``: when trying again makes sense; 0 when it never does.
    """

    def __init__(self, code: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


class NewRequest(msgspec.Struct, frozen=True):
    """A request as it comes in. ``prompt``: little-endian uint32 ids, at least one; ``max_tokens``: of output, at
    least 1.

    request         the caller's id, not negative, unique among those that have not ended
    tenant          who is served and who pays; ``namespace``: who of the tenant shares cached pages with whom
    system_tokens   leading prompt tokens that are the system prompt; ``history_tokens``: ... that an earlier turn of
                    this conversation had. For the counters of hits by class only
    queue_seconds   longest wait until it first runs, 0 for any; refused at once when it is predicted to be longer
    seconds         longest time until it ends, 0 for any
    open_ended      nobody asked for ``max_tokens``: it is cut to what its tenant's quota and the pinned pages leave
    """

    request: int
    prompt: bytes
    max_tokens: int
    sampling: Sampling = Sampling()
    stop_tokens: frozenset[int] = frozenset()
    tenant: str = ""
    namespace: str = ""
    system_tokens: int = 0
    history_tokens: int = 0
    queue_seconds: float = 0.0
    seconds: float = 0.0
    open_ended: bool = False


class Request:
    """A request that has been accepted and has not ended; changed by the scheduler only.

    order      position in the order of arrival
    tenant     whose service counts
    key        prompt and output so far; ``total`` counts its tokens, ``output`` those of the output
    limit      most tokens whose keys and values are ever needed: prompt + max_tokens - 1
    ticket     its standing with the cache while it waits; ``place``: its place in its tenant's queue, None: not in it
    blocked    pages that were to be had when it last found too few; tried again when there are more
    lease      what it holds of the cache while it runs
    slot       row of the runner's block table; -1 while waiting
    computed   tokens whose keys and values are certainly in its pages
    planned    ... also those that steps in flight compute
    unknown    tokens that steps in flight will sample, 0 or 1
    flights    steps in flight that it is in
    epoch      moves when it is let go: what a step in flight says about an earlier epoch is void
    charged    tokens that its tenant has been charged for, so that computing again is free
    arrival, started   seconds; ``started`` is when it first ran, negative before
    cancelled  ends when no step in flight has it any more, its tokens dropped
    """

    __slots__ = (
        "arrival",
        "blocked",
        "cancelled",
        "charged",
        "computed",
        "epoch",
        "flights",
        "key",
        "lease",
        "limit",
        "new",
        "order",
        "output",
        "place",
        "planned",
        "preempted",
        "slot",
        "started",
        "tenant",
        "ticket",
        "total",
        "unknown",
    )

    def __init__(self, new: NewRequest, key: Key, tenant: "Tenant", order: int, arrival: float) -> None:
        self.key = key
        self.tenant = tenant
        self.order = order
        self.arrival = arrival
        self.started = -1.0
        self.output = 0
        self.total = len(key)
        self.bound(new)
        self.ticket: Ticket | None = None
        self.place: tuple[int, int, int, int] | None = None
        self.blocked = -1
        self.lease: Lease | None = None
        self.slot = -1
        self.computed = 0
        self.planned = 0
        self.unknown = 0
        self.flights = 0
        self.epoch = 0
        self.charged = 0
        self.preempted = False
        self.cancelled = False

    def bound(self, new: NewRequest) -> None:
        """It is ``new``: the same with another ``max_tokens``, more than its output has or will have by what runs."""
        self.new = new
        self.limit = self.prompt_tokens + max(new.max_tokens - 1, 0)

    @property
    def least(self) -> int:
        """``limit``, or what it can be cut to: a token after those that it has or will have by what runs."""
        known = self.prompt_tokens + self.output + self.unknown
        return min(self.limit, known) if self.new.open_ended else self.limit

    @property
    def prompt_tokens(self) -> int:
        """Tokens that it came with."""
        return len(self.new.prompt) // TOKEN_BYTES

    @property
    def scored(self) -> bool:
        """Whether all of its prompt has to be computed, cached or not: its log-probabilities are wanted."""
        return self.new.sampling.prompt_logprobs is not None and not self.output

    @property
    def held(self) -> Lease:
        """The lease of a running request."""
        assert self.lease is not None  # running requests hold one
        return self.lease
