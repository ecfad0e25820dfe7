"""The waiting queue and its order: first come, first served. The seam for fairness and prefix-aware orders.

Knows requests, not pages.
"""

from collections.abc import Iterator

from sortedcontainers import SortedDict

from scheduler.request import Request


class WaitingQueue:
    """Requests that hold nothing, in order of arrival; a preempted one takes its old place again. O(log n) a change."""

    def __init__(self) -> None:
        self._requests: SortedDict[int, Request] = SortedDict()

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        """In the order in which they should run."""
        return iter(self._requests.values())

    def push(self, request: Request) -> None:
        """Add a request that is not in the queue."""
        self._requests[request.order] = request

    def remove(self, request: Request) -> None:
        """Take a request out that is in the queue."""
        del self._requests[request.order]
