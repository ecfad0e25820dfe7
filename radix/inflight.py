"""Sharing what is not computed yet: who is about to compute which block, and who waits for it. Knows no pages.

A lease whose sequence goes on beyond what has been scheduled is a *producer*; its *frontier* is the next block it will
schedule. A waiting sequence whose match ends where a producer's frontier stands waits for it, holding nothing, until
the producer has scheduled all that the two have in common. When the producer leaves (done, cancelled, preempted) its
waiters are woken; the first of them that runs becomes the producer of the rest, and the others find it there.

A waiting sequence whose next block nobody computes *watches* that block's digest: its match can only grow by a run of
blocks that begins with it. So a match is looked up again only when it could have become longer; that it became
shorter (eviction) is noticed when it is used.

Woken tickets are handed over group by group in O(1), however many wait, and taken one by one by whoever matches them.
"""

from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping

from sortedcontainers import SortedDict

from radix.hashing import Key, common_blocks
from radix.lease import Lease

Shelf = MutableMapping[int, "dict[str, Group]"]
"""A number (a watched digest; how many blocks a producer must have scheduled) -> lane -> tickets."""


class Group:
    """Tickets that will be woken together; all of one lane. Lies in ``shelf[label][lane]`` until it is woken."""

    __slots__ = ("label", "shelf", "tickets", "woken")

    def __init__(self, shelf: Shelf, label: int) -> None:
        self.tickets: dict[Ticket, None] = {}
        self.shelf = shelf
        self.label = label
        self.woken = False


class Ticket:
    """How a waiting sequence stands with the cache.

    owner     whoever waits; the cache does not look at it
    lane      whoever takes woken tickets one by one; here the tenant
    cached    tokens found when it was last matched
    producer  lease that computes its next block; None: nobody does
    matched   False until the first match, and again from being woken to the next match
    """

    __slots__ = ("cached", "group", "key", "lane", "matched", "owner", "producer")

    def __init__(self, key: Key, lane: str, owner: object) -> None:
        self.key = key
        self.owner = owner
        self.lane = lane
        self.cached = 0
        self.producer: Lease | None = None
        self.matched = False
        self.group: Group | None = None


class Producer:
    """A lease with blocks still to be scheduled, the next of them with ``digest``; ``parked`` as in ``Shelf``."""

    __slots__ = ("digest", "lease", "parked")

    def __init__(self, lease: Lease, digest: int) -> None:
        self.lease = lease
        self.digest = digest
        self.parked: SortedDict[int, dict[str, Group]] = SortedDict()


class Frontiers:
    """Producers by frontier, watched digests, and woken tickets by lane."""

    def __init__(self) -> None:
        self.frontiers: dict[int, Producer] = {}
        self.producers: dict[int, Producer] = {}
        self.watched: Shelf = {}
        self._woken: dict[str, deque[tuple[Group, Iterator[Ticket]]]] = {}

    # ------------------------------------------------------------------ tickets

    def enter(self, ticket: Ticket) -> None:
        """A new ticket waits for its first match."""
        group = Group({}, 0)
        group.woken = True
        ticket.group = group
        self._woken.setdefault(ticket.lane, deque()).append((group, iter((ticket,))))

    def place(self, ticket: Ticket, block: int) -> None:
        """The ticket's match ends at ``block``: park it behind a producer, or let it watch. O(log)."""
        self.drop(ticket)
        ticket.matched = True
        digests = ticket.key.digests
        if block >= len(digests):
            return
        producer = self.frontiers.get(digests[block])
        if producer is None:
            _put(self.watched, digests[block], ticket)
            return
        ticket.producer = producer.lease
        until = max(common_blocks(producer.lease.key.digests, digests), block + 1)
        _put(producer.parked, until, ticket)

    def drop(self, ticket: Ticket) -> None:
        """Take a ticket out of wherever it is; idempotent. O(1)."""
        group, ticket.group, ticket.producer = ticket.group, None, None
        if group is None or group.woken:
            return
        del group.tickets[ticket]
        if not group.tickets:
            lanes = group.shelf[group.label]
            del lanes[ticket.lane]
            if not lanes:
                del group.shelf[group.label]

    def lanes(self) -> Iterable[str]:
        """Lanes that may have woken or new tickets."""
        return self._woken

    def take(self, lane: str) -> Ticket | None:
        """The next ticket of a lane whose match could have changed; the caller matches it. Amortized O(1)."""
        queue = self._woken.get(lane)
        while queue:
            group, tickets = queue[0]
            for ticket in tickets:
                if ticket.group is group:
                    ticket.group = ticket.producer = None
                    ticket.matched = False
                    return ticket
            queue.popleft()
        self._woken.pop(lane, None)
        return None

    # ------------------------------------------------------------------ producers

    def advance(self, lease: Lease) -> None:
        """The lease's blocks up to ``lease.published`` are scheduled: move its frontier and wake who is served."""
        digests, at = lease.key.digests, lease.published
        producer = self.producers.get(id(lease))
        if at >= len(digests) or lease.closed_to_sharing:
            if producer is not None:
                self.leave(lease)
            return
        if producer is None:
            producer = self.producers[id(lease)] = Producer(lease, digests[at])
        elif producer.digest != digests[at]:
            self._clear(producer)
            producer.digest = digests[at]
        self.frontiers.setdefault(producer.digest, producer)
        parked = producer.parked
        while parked and parked.peekitem(0)[0] <= at:
            self._wake(parked.popitem(0)[1])

    def leave(self, lease: Lease) -> None:
        """The lease computes nothing more that others could wait for; idempotent. O(groups)."""
        producer = self.producers.pop(id(lease), None)
        if producer is None:
            return
        self._clear(producer)
        for groups in producer.parked.values():
            self._wake(groups)

    def inserted(self, digest: int) -> None:
        """A run of blocks that begins with ``digest`` is in the tree: wake who watches it. O(lanes)."""
        groups = self.watched.pop(digest, None)
        if groups is not None:
            self._wake(groups)

    # ------------------------------------------------------------------

    def _wake(self, groups: dict[str, Group]) -> None:
        for lane, group in groups.items():
            group.woken = True
            self._woken.setdefault(lane, deque()).append((group, iter(group.tickets)))

    def _clear(self, producer: Producer) -> None:
        if self.frontiers.get(producer.digest) is not producer:
            return
        del self.frontiers[producer.digest]
        for other in self.producers.values():  # seldom more than one or two
            if other is not producer and other.digest == producer.digest:
                self.frontiers[producer.digest] = other
                return


def _put(shelf: Shelf, label: int, ticket: Ticket) -> None:
    lanes = shelf.setdefault(label, {})
    group = lanes.get(ticket.lane)
    if group is None:
        group = lanes[ticket.lane] = Group(shelf, label)
    group.tickets[ticket] = None
    ticket.group = group
