"""All open sockets of this server: how many a key has, whose time is over, which are to be closed now.

Knows no protocol: a socket is something with an identity that can tick and be closed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from backend.errors import BanyanError
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
    """``per_key``: most sockets of one key."""

    def __init__(self, per_key: int) -> None:
        self._per_key = per_key
        self._sockets: set[OpenSocket] = set()
        self._count: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._sockets)

    def __iter__(self) -> Iterator[OpenSocket]:
        return iter(list(self._sockets))

    def admit(self, identity: Identity) -> None:
        """Raises ``BanyanError`` (429, ``websocket_connection_limit_reached``) when its key has enough."""
        if self._count[_key(identity)] >= self._per_key:
            raise BanyanError(
                f"this key has {self._per_key} sockets open, the most it may have",
                code="websocket_connection_limit_reached",
                status=429,
                retry_after_s=10.0,
            )

    def add(self, socket: OpenSocket) -> None:
        """It was accepted."""
        self._sockets.add(socket)
        self._count[_key(socket.identity)] += 1

    def remove(self, socket: OpenSocket) -> None:
        """It is gone."""
        self._sockets.discard(socket)
        key = _key(socket.identity)
        self._count[key] -= 1
        if not self._count[key]:
            del self._count[key]

    def close_all(self, code: int, reason: str) -> None:
        """Close every socket."""
        _close(list(self._sockets), code, reason)

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


def _key(identity: Identity) -> tuple[str, str]:
    return identity.tenant, identity.key_id


def _close(sockets: Iterable[OpenSocket], code: int, reason: str) -> None:
    for socket in sockets:
        socket.close(code, reason)
