"""Which replica a request goes to. A router uses only what a real one in front of the engines would know: the requests
themselves, where it has sent the ones before, and which of these have not been answered or have not ended.

The caches' contents are not reported to it. ``Prefix`` remembers the prompts that it has sent where, as the routers of
SGLang and Preble do (arXiv 2407.00023), and forgets the oldest when a replica could not hold more.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import ceil
from typing import Protocol

from radix.hashing import xxh3
from radix.packing import TOKEN_BYTES
from scheduler.simulate.recorder import Traffic
from scheduler.trace import TracedRequest

# Consistent hashing with bounded loads (arXiv 1608.01350): nobody has more than so many times the mean.
_BOUND = 1.25
# ... but so few open requests are no load worth avoiding: a batch of them takes hardly longer than one.
_LIGHT = 8
_BLOCK_TOKENS = 64


class Router(Protocol):
    """One method."""

    def route(self, request: TracedRequest, traffic: Sequence[Traffic]) -> int:
        """Index of the replica for ``request``; ``traffic`` is that of each replica now."""
        ...


def lightest(traffic: Sequence[Traffic], among: Sequence[int]) -> int:
    """The replica with the fewest open requests, then the fewest unanswered tokens, then the first. O(among)."""
    return min(among, key=lambda index: (traffic[index].requests, traffic[index].unanswered_tokens))


def within_bound(traffic: Sequence[Traffic]) -> list[int]:
    """Replicas that may take one more request: at least one. O(replicas)."""
    total = sum(one.requests for one in traffic) + 1
    bound = max(ceil(_BOUND * total / len(traffic)), _LIGHT)
    return [index for index, one in enumerate(traffic) if one.requests < bound]


class Random:
    """Anyone."""

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)

    def route(self, request: TracedRequest, traffic: Sequence[Traffic]) -> int:
        """Drawn uniformly."""
        return self._chance.randrange(len(traffic))


class RoundRobin:
    """Each in turn."""

    def __init__(self) -> None:
        self._next = -1

    def route(self, request: TracedRequest, traffic: Sequence[Traffic]) -> int:
        """The next one."""
        self._next = (self._next + 1) % len(traffic)
        return self._next


class LeastLoaded:
    """Whoever has least to do; of equals the next in turn."""

    def __init__(self) -> None:
        self._next = 0

    def route(self, request: TracedRequest, traffic: Sequence[Traffic]) -> int:
        """O(replicas)."""
        count = len(traffic)
        chosen = lightest(traffic, [(self._next + step) % count for step in range(count)])
        self._next = (chosen + 1) % count
        return chosen


class ByTenant:
    """A tenant's requests go to one replica, chosen by rendezvous hashing, and to the next choice while that one is
    above the bound."""

    def route(self, request: TracedRequest, traffic: Sequence[Traffic]) -> int:
        """O(replicas)."""
        name = request.tenant.encode()
        return max(within_bound(traffic), key=lambda index: xxh3(name, index))


class ByPrefix:
    """Where the longest beginning of the prompt has been sent before, among the replicas within the bound; of equals
    the one with the least to do.

    ``capacity_tokens``: of one replica's KV pool; what was sent longest ago is forgotten beyond it. Prompts are
    remembered in blocks of 64 tokens. O(blocks of the prompt + replicas).
    """

    def __init__(self, replicas: int, capacity_tokens: int) -> None:
        self._capacity = max(capacity_tokens // _BLOCK_TOKENS, 1)
        self._sent: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(replicas)]
        self._holders: dict[int, int] = {}  # digest of a prompt up to the end of a block -> replicas, one bit each

    def route(self, request: TracedRequest, traffic: Sequence[Traffic]) -> int:
        """Remembers the choice."""
        digests = _digests(request.prompt)
        among = within_bound(traffic)
        holding = sum(1 << index for index in among)
        known = self._holders
        for digest in digests:
            still = holding & known.get(digest, 0)
            if not still:
                break
            holding = still
        chosen = lightest(traffic, [index for index in among if holding >> index & 1])
        self._remember(chosen, digests)
        return chosen

    def _remember(self, replica: int, digests: list[int]) -> None:
        sent, known, bit = self._sent[replica], self._holders, 1 << replica
        for digest in reversed(digests):  # the beginning of a prompt is forgotten last
            if digest in sent:
                sent.move_to_end(digest)
            else:
                sent[digest] = None
                known[digest] = known.get(digest, 0) | bit
        while len(sent) > self._capacity:
            digest, _ = sent.popitem(last=False)
            left = known[digest] & ~bit
            if left:
                known[digest] = left
            else:
                del known[digest]


def _digests(prompt: bytes) -> list[int]:
    width = _BLOCK_TOKENS * TOKEN_BYTES
    digest, digests = 0, []
    for at in range(0, len(prompt) - width + 1, width):
        digest = xxh3(prompt[at : at + width], digest)
        digests.append(digest)
    return digests


ROUTERS: dict[str, Callable[[int, int], Router]] = {
    "random": lambda replicas, capacity_tokens: Random(),
    "round-robin": lambda replicas, capacity_tokens: RoundRobin(),
    "least-loaded": lambda replicas, capacity_tokens: LeastLoaded(),
    "prefix": ByPrefix,
    "tenant": lambda replicas, capacity_tokens: ByTenant(),
}
"""By name; a router is told the number of replicas and the tokens that each one's KV pool holds."""
