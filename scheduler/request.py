"""What a request is: as it is handed in (``NewRequest``), and as the scheduler keeps it (``Request``)."""

import msgspec

from radix.hashing import TOKEN_BYTES, Key
from radix.lease import Lease
from scheduler.plan import Sampling


class RequestRejected(Exception):
    """A request was refused when it was handed in; nothing of it is kept.

    ``code``: ``context_length_exceeded`` (can never fit), ``server_overloaded`` (the queue is full) or
    ``invalid_request``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NewRequest(msgspec.Struct, frozen=True):
    """A request as it comes in. ``prompt``: little-endian uint32 ids, at least one; ``max_tokens``: of output, at
    least 1.

    ``request`` is the caller's id, unique among those that have not ended. ``namespace``: who shares cached pages
    with whom.
    """

    request: int
    prompt: bytes
    max_tokens: int
    sampling: Sampling = Sampling()
    stop_tokens: frozenset[int] = frozenset()
    tenant: str = ""
    namespace: str = ""


class Request:
    """A request that has been accepted and has not ended; changed by the scheduler only.

    order      position in the order of arrival; the older one keeps its pages when they run short
    key        prompt and output so far
    output     number of output tokens so far
    limit      most tokens whose keys and values are ever needed: prompt + max_tokens - 1
    lease      what it holds of the cache; None while waiting
    slot       row of the runner's block table; -1 while waiting
    computed   tokens whose keys and values are certainly in its pages
    planned    ... also those that the step in flight computes
    arrival, started   seconds; ``started`` is when it first ran, negative before
    cancelled  ends at the commit of the step in flight, its tokens dropped
    """

    __slots__ = (
        "arrival",
        "cancelled",
        "computed",
        "key",
        "lease",
        "limit",
        "new",
        "order",
        "output",
        "planned",
        "preempted",
        "slot",
        "started",
    )

    def __init__(self, new: NewRequest, key: Key, order: int, arrival: float) -> None:
        self.new = new
        self.key = key
        self.order = order
        self.arrival = arrival
        self.started = -1.0
        self.output = 0
        self.limit = len(key) + new.max_tokens - 1
        self.lease: Lease | None = None
        self.slot = -1
        self.computed = 0
        self.planned = 0
        self.preempted = False
        self.cancelled = False

    @property
    def total(self) -> int:
        """Tokens of prompt and output so far."""
        return len(self.key.tokens) // TOKEN_BYTES

    @property
    def pending(self) -> int:
        """Tokens whose keys and values are not computed yet."""
        return len(self.key.tokens) // TOKEN_BYTES - self.computed
