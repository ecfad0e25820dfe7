"""Which requests have a time until which they must have started, or ended. Knows ids and times only."""

import heapq
from collections.abc import Container, Sized
from typing import Protocol


class OpenRequests(Container[int], Sized, Protocol):
    """Ids of requests that have not ended."""


class Deadlines:
    """O(log n) a deadline; those of requests that ended before are dropped when their time comes, or by ``prune``."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, bool]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request: int, at: float, to_start: bool) -> None:
        """At ``at`` the request must have started (``to_start``) or ended."""
        heapq.heappush(self._heap, (at, request, to_start))

    def due(self, now: float) -> list[tuple[int, bool]]:
        """Take out what is due: request and ``to_start``, earliest first."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            _, request, to_start = heapq.heappop(self._heap)
            taken.append((request, to_start))
        return taken

    def prune(self, requests: OpenRequests) -> None:
        """Forget requests that have ended, once most entries are theirs. Amortized O(1)."""
        if len(self._heap) > 1024 + 4 * len(requests):
            self._heap = [entry for entry in self._heap if entry[1] in requests]
            heapq.heapify(self._heap)
