"""What waits to be sent on one socket. Knows no socket: ``send`` is given. Bounds nothing: who puts reads ``bytes``."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Outbox:
    """A queue with one writer. ``relieved`` is called when what waits falls below ``relief_bytes``.

    A message is sent where it is put, as long as ``send`` does not have to wait; a task is made only when it does. At
    one token a message that is a third of the whole cost of a token (measured by ``benchmarks.sockets``).
    """

    __slots__ = ("_broken", "_relief_bytes", "_relieved", "_send", "_waiting", "_writer", "bytes")

    def __init__(
        self,
        send: Callable[[bytes], Coroutine[Any, Any, None]],
        relieved: Callable[[], None],
        relief_bytes: int,
    ) -> None:
        self.bytes = 0
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
        if self._writer is not None:
            assert self._waiting is not None  # made with the writer
            self._waiting.append(message)
            self.bytes += len(message)
            return
        sending = self._send(message)
        try:
            wanted = sending.send(None)
        except StopIteration:
            return
        except Exception:
            self._broken = True
            return
        self.bytes += len(message)
        self._waiting = deque()
        self._writer = asyncio.create_task(self._write(_Begun(sending, wanted), len(message)))

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

    async def _write(self, begun: "_Begun", size: int) -> None:
        waiting = self._waiting
        assert waiting is not None  # made with the writer
        try:
            await begun
            self._sent(size)
            while waiting:
                message = waiting.popleft()
                await self._send(message)
                self._sent(len(message))
        except Exception:
            self._broken = True
        finally:
            self._writer = self._waiting = None

    def _sent(self, size: int) -> None:
        before, self.bytes = self.bytes, self.bytes - size
        if self.bytes < self._relief_bytes <= before:
            self._relieved()


class _Begun:
    """A coroutine that has run up to the first thing it waits for, ``wanted``; await it to go on from there."""

    __slots__ = ("_coroutine", "_wanted")

    def __init__(self, coroutine: Coroutine[Any, Any, None], wanted: object) -> None:
        self._coroutine = coroutine
        self._wanted = wanted

    def __await__(self) -> Generator[Any, Any, None]:
        wanted = self._wanted
        try:
            while True:
                try:
                    value = yield wanted
                except BaseException as error:
                    wanted = self._coroutine.throw(error)
                else:
                    wanted = self._coroutine.send(value)
        except StopIteration:
            return
