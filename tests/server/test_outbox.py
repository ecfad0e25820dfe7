"""What is sent at once, what waits, and in which order it goes."""

import asyncio

from backend.server.outbox import Outbox


class Peer:
    """Takes messages at once while ``open``; ``send`` waits until it is."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.open = asyncio.Event()
        self.relieved = 0
        self.outbox = Outbox(self.write, self.send, self.relief, relief_bytes=5)

    def write(self, message: bytes) -> bool:
        if self.open.is_set():
            self.got.append(message)
        return self.open.is_set()

    async def send(self, message: bytes) -> None:
        await self.open.wait()
        if message == b"broken":
            raise ConnectionResetError
        self.got.append(message)

    def relief(self) -> None:
        self.relieved += 1


async def test_nothing_waits_while_the_peer_takes_it() -> None:
    peer = Peer()
    peer.open.set()
    peer.outbox.put(b"1")
    assert peer.got == [b"1"] and peer.outbox.bytes == 0
    assert len(asyncio.all_tasks()) == 1


async def test_what_waits_goes_first_and_relief_is_told_once() -> None:
    peer = Peer()
    for message in (b"one", b"two", b"three"):
        peer.outbox.put(message)
    assert peer.got == [] and peer.outbox.bytes == 11
    peer.open.set()
    peer.outbox.put(b"four")  # the peer would take it now: before those that wait
    await peer.outbox.drained()
    assert peer.got == [b"one", b"two", b"three", b"four"]
    assert (peer.outbox.bytes, peer.relieved) == (0, 1)
    peer.outbox.put(b"five")
    assert peer.got[-1] == b"five"


async def test_nothing_is_sent_once_the_peer_is_gone() -> None:
    peer = Peer()
    peer.outbox.put(b"broken")
    peer.outbox.put(b"behind it")
    peer.open.set()
    await peer.outbox.drained()
    peer.outbox.put(b"late")
    assert peer.got == []


async def test_closing_ends_what_waits() -> None:
    peer = Peer()
    peer.outbox.put(b"one")
    await peer.outbox.close()
    peer.open.set()
    peer.outbox.put(b"two")
    assert peer.got == [] and len(asyncio.all_tasks()) == 1
