"""Writes usage records behind the requests' backs: a bounded queue, and a thread that empties it in batches.

``put`` never waits. While the database cannot be written the records stay, up to the bound; beyond it the newest are
lost, counted and said. A batch is one transaction, and trying again writes nothing twice.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

from backend.tenants.errors import DatabaseError
from backend.tenants.usage_store import UsageRecord

_log = logging.getLogger("banyan.tenants")


class UsageWriter:
    """``write``: the store's, which raises ``DatabaseError``. ``lost``: records since the start that are nowhere."""

    def __init__(
        self,
        write: Callable[[list[UsageRecord]], None],
        *,
        most: int = 100_000,
        batch: int = 500,
        every_seconds: float = 0.5,
    ) -> None:
        self._write = write
        self._most = most
        self._batch = batch
        self._every = every_seconds
        self._waiting: deque[UsageRecord] = deque()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._failing = False
        self._said = 0
        self._thread: threading.Thread | None = None
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Records that are not in the database yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="banyan-usage", daemon=True)
        self._thread.start()

    def put(self, record: UsageRecord) -> None:
        """Queue a record, or lose it when the queue is full. Never blocks on the database."""
        with self._lock:
            if len(self._waiting) < self._most:
                self._waiting.append(record)
            else:
                self.lost += 1

    def flush(self) -> bool:
        """Write what waits, now; False when the database did not take it. One caller at a time."""
        while batch := self._first():
            try:
                self._write(batch)
            except DatabaseError as error:
                self._complain(error.message)
                return False
            with self._lock:
                for _ in batch:
                    self._waiting.popleft()
            if self._failing:
                self._failing = False
                _log.warning("usage can be written again")
        return True

    def close(self) -> None:
        """Write what waits, once more, and end; what cannot be written is lost, and said."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        if not self.flush() and self._waiting:
            self.lost += len(self._waiting)
            _log.error("%d usage records are lost: the database did not take them", len(self._waiting))
            self._waiting.clear()

    def _run(self) -> None:
        while not self._ending.wait(self._every):
            try:
                self.flush()
            except Exception:
                _log.exception("usage records could not be written")

    def _first(self) -> list[UsageRecord]:
        with self._lock:
            return [self._waiting[i] for i in range(min(self._batch, len(self._waiting)))]

    def _complain(self, why: str) -> None:
        if not self._failing:
            _log.error("usage cannot be written, %d records wait: %s", len(self._waiting), why)
        if self.lost > self._said:
            _log.error("%d usage records are lost: the database does not take them: %s", self.lost - self._said, why)
        self._failing, self._said = True, self.lost
