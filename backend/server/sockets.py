"""All open sockets of this server: whose time is over, which are to be closed now.

Knows no protocol: a socket is something with an identity that can tick and be closed.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from backend.server.identity import Identity

_TICK_SECONDS = 1.0
_AT_ONCE = 200  # ticked before others have a turn: about 0.2 ms


class OpenSocket(Protocol):
    """One socket."""

    identity: Identity

    @property
    def busy(self) -> bool:
        """Whether a response is in flight on it, or something waits to be sent."""
        ...

    def tick(self, now: float) -> None:
        """Time has passed."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End it and all that it has open, without grace."""
        ...


class OpenSockets:
    """Added when they are accepted; how many there may be is the limiter's business."""

    def __init__(self) -> None:
        self._sockets: set[OpenSocket] = set()

    def __len__(self) -> int:
        return len(self._sockets)

    def __iter__(self) -> Iterator[OpenSocket]:
        return iter(list(self._sockets))

    def add(self, socket: OpenSocket) -> None:
        """It was accepted."""
        self._sockets.add(socket)

    def remove(self, socket: OpenSocket) -> None:
        """It is gone."""
        self._sockets.discard(socket)

    def close_all(self, code: int, reason: str) -> None:
        """Close every socket."""
        for socket in list(self._sockets):
            socket.close(code, reason)

    async def tick(self, now: Callable[[], float]) -> None:
        """Let time pass for each; others have their turn in between."""
        for index, socket in enumerate(list(self._sockets), 1):
            socket.tick(now())
            if not index % _AT_ONCE:
                await asyncio.sleep(0)

    async def tick_forever(self, now: Callable[[], float]) -> None:
        """Once a second, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            await self.tick(now)
