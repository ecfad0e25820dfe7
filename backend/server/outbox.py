"""What waits to be sent on one socket. Knows no socket: it is given how to write. Bounds nothing: who puts reads
``bytes``."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class Outbox:
    """A queue with one writer. ``relieved`` is called when what waits falls below ``relief_bytes``.

    ``write`` sends a message at once and says whether it did; where it cannot, the message waits for a task that goes
    through ``send``. At one token a message, a task and the layers around ``send`` were half of the cost of a token
    (measured by ``benchmarks.sockets``).
    """

    __slots__ = ("_broken", "_relief_bytes", "_relieved", "_send", "_waiting", "_write", "_writer", "bytes")

    def __init__(
        self,
        write: Callable[[bytes], bool],
        send: Callable[[bytes], Coroutine[Any, Any, None]],
        relieved: Callable[[], None],
        relief_bytes: int,
    ) -> None:
        self.bytes = 0
        self._write = write
        self._send = send
        self._relieved = relieved
        self._relief_bytes = relief_bytes
        self._waiting: deque[bytes] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._broken = False

    def put(self, message: bytes) -> None:
        """Send or queue ``message``; never blocks. Nothing happens once the peer is gone."""
        if self._broken:
            return
        if self._writer is None:
            try:
                if self._write(message):
                    return
            except Exception:
                self._broken = True
                return
            self._waiting = deque()
            self._writer = asyncio.create_task(self._drain(self._waiting))
        assert self._waiting is not None  # made with the writer
        self._waiting.append(message)
        self.bytes += len(message)

    async def drained(self) -> None:
        """Until all that was put has been handed to ``send``."""
        while self._writer is not None:
            await asyncio.wait((self._writer,))

    async def close(self) -> None:
        """Send nothing more."""
        self._broken = True
        if (writer := self._writer) is not None:
            writer.cancel()
            with contextlib.suppress(BaseException):
                await writer

    async def _drain(self, waiting: deque[bytes]) -> None:
        try:
            while waiting:
                message = waiting.popleft()
                await self._send(message)
                before, self.bytes = self.bytes, self.bytes - len(message)
                if self.bytes < self._relief_bytes <= before:
                    self._relieved()
        except Exception:
            self._broken = True
        finally:
            self._writer = self._waiting = None
