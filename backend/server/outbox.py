"""What waits to be sent on one socket, bounded in bytes. Knows no socket: ``send`` is given."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable


class Outbox:
    """A queue with one writer. ``put`` never blocks."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, message: bytes) -> bool:
        """Queue ``message``. False when the budget is spent: the reader is too slow."""
        if self._bytes + len(message) > self._budget and self._waiting:
            return False
        self._waiting.append(message)
        self._bytes += len(message)
        self._wake.set()
        self._idle.clear()
        return True

    async def run(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send until cancelled, or until ``send`` raises."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                message = self._waiting.popleft()
                await send(message)
                self._bytes -= len(message)
            self._idle.set()

    async def drained(self) -> None:
        """Until all that was put has been handed to ``send``."""
        await self._idle.wait()
