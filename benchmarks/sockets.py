"""What sockets cost: memory of idle ones, and what one core delivers: ``python -m benchmarks.sockets``.

The server (``benchmarks.metronome``) runs in a process of its own, on one core if there are more. Clients are as small
as can be, so that they are not what is measured; what they cost and how late they are is said.

Idle: resident memory of the server before and with N sockets. Streams: tokens delivered a second, and the time from a
step of the engine to the frame at the client, on the clock that both processes share.
"""

import argparse
import asyncio
import base64
import json
import os
import resource
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks.metronome import raise_file_limit

_PAGE_BYTES = resource.getpagesize()
_TICK_SECONDS = 0.005


class Client(asyncio.Protocol):
    """A WebSocket that notes when each text frame came and answers pings."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deltas = array("d")
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        key = base64.b64encode(os.urandom(16))
        self._write(
            b"GET /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: banyan.v1\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        buffer = self._buffer + data
        if not self.opened.done():
            head, ends, buffer = buffer.partition(b"\r\n\r\n")
            if not ends:
                self._buffer = head
                return
            if b" 101 " not in head[:20]:
                self.opened.set_exception(ConnectionError(head.decode()))
                return
            self.opened.set_result(None)
        while len(buffer) >= 2:
            size, start = buffer[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(buffer[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(buffer[2:10], "big"), 10
            if len(buffer) < start + size:
                break
            self._frame(buffer[0] & 0x0F, buffer[start : start + size], now)
            buffer = buffer[start + size :]
        self._buffer = buffer

    def _frame(self, opcode: int, body: bytes, now: float) -> None:
        if opcode == 9:
            self._write(bytes([0x8A, 0x80 | len(body)]) + bytes(4) + body)
        elif b'"response.output_text.delta"' in body[:60]:
            self.deltas.append(now)
        elif b'"response.incomplete"' in body[:60] and not self.ended.done():
            self.ended.set_result(None)

    def say(self, event: dict[str, object]) -> None:
        """Send an event of less than 126 bytes."""
        body = json.dumps(event).encode()
        assert len(body) < 126
        self._write(bytes([0x81, 0x80 | len(body)]) + bytes(4) + body)

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_exception(ConnectionError("the server closed the socket"))
                future.exception()

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


async def open_clients(port: int, number: int, at_once: int = 64) -> list[Client]:
    """So many sockets, accepted."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    while len(clients) < number:
        some = min(at_once, number - len(clients))
        made = await asyncio.gather(*(loop.create_connection(Client, "127.0.0.1", port) for _ in range(some)))
        await asyncio.gather(*(client.opened for _, client in made))
        clients += [client for _, client in made]
    return clients


async def begin_all(clients: list[Client], tokens: int) -> None:
    """Have each ask for an answer of so many tokens, within less than a second."""
    for client in clients:
        client.say({"type": "response.create", "input": "Hi", "max_output_tokens": tokens})
        await asyncio.sleep(0.001)


@contextmanager
def served(rate: float) -> "Iterator[tuple[subprocess.Popen[str], int]]":
    """The server and its port; it has the first core, and this process the others."""
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.metronome", "--rate", str(rate)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if len(cores) > 1:
            os.sched_setaffinity(child.pid, cores[:1])
            os.sched_setaffinity(0, cores[1:])
        assert child.stdout is not None
        yield child, json.loads(child.stdout.readline())["port"]
    finally:
        child.kill()
        child.wait()


def resident_bytes(pid: int) -> int:
    """Memory of a process that is there."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def percentile(values: list[float], q: float) -> float:
    """Of ``values``, which are in order; ``q`` from 0 to 100."""
    return values[min(int(len(values) * q / 100), len(values) - 1)]


class _Own:
    """What this process costs, and by how much it is late, from when it is made until ``told``."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._cpu, self._began = time.process_time(), time.monotonic()
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            self._late.append(time.monotonic() - due)

    def told(self) -> dict[str, float]:
        self._ticking.cancel()
        busy = (time.process_time() - self._cpu) / (time.monotonic() - self._began)
        late = percentile(sorted(self._late), 99)
        return {"client_cores_used": round(busy, 2), "client_late_ms_p99": round(1000 * late, 2)}


async def _measure(arguments: argparse.Namespace) -> dict[str, object]:
    with served(arguments.rate) as (child, port):
        result: dict[str, object] = {}
        warm = await open_clients(port, 50)
        if arguments.idle:
            result["idle"] = await _idle(child.pid, port, arguments.idle)
        if arguments.streams:
            clients = await open_clients(port, arguments.streams)
            own = _Own()
            await begin_all(clients, int(arguments.seconds * arguments.rate))
            await asyncio.gather(*(client.ended for client in clients))
            seen = own.told()
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        done = json.loads(child.stdout.readline())
        if arguments.streams:
            result["streams"] = _delivery(clients, done, arguments) | seen
        del warm
        return result


async def _idle(pid: int, port: int, number: int) -> dict[str, object]:
    before, began = resident_bytes(pid), time.monotonic()
    idle = await open_clients(port, number)
    opened = time.monotonic() - began
    await asyncio.sleep(1.0)
    each = (resident_bytes(pid) - before) / len(idle)
    return {"sockets": len(idle), "kib_each": round(each / 1024, 1), "open_s": round(opened, 1)}


def _delivery(clients: list[Client], done: dict[str, object], arguments: argparse.Namespace) -> dict[str, object]:
    beats, first = done["beats"], done["first"]
    assert isinstance(beats, list) and isinstance(first, dict)
    tokens = int(arguments.seconds * arguments.rate)
    start, end = max(client.deltas[0] for client in clients), min(client.deltas[-1] for client in clients)
    delivered = merged = 0
    delays: list[float] = []
    steady: list[float] = []  # while all stream: none begins, none ends
    gaps: list[float] = []
    for client, began in zip(clients, [first[key] for key in sorted(first, key=int)], strict=True):
        delivered += sum(start <= at <= end for at in client.deltas)
        merged += tokens - len(client.deltas)
        gaps += [b - a for a, b in zip(client.deltas, client.deltas[1:], strict=False)]
        if len(client.deltas) == tokens:
            each = [1000 * (at - beats[began + i]) for i, at in enumerate(client.deltas)]
            delays += each
            steady += [delay for delay, at in zip(each, client.deltas, strict=True) if start < at < end]
    for values in (delays, steady, gaps):
        values.sort()
    return {
        "streams": len(clients),
        "asked_per_s": len(clients) * arguments.rate,
        "tokens_per_s": round(delivered / (end - start), 1),
        "merged_or_held": merged,
        "delay_ms": {f"p{q}": round(percentile(delays, q), 2) for q in (50, 99, 99.9)},
        "delay_ms_while_all_stream": {f"p{q}": round(percentile(steady, q), 2) for q in (50, 99, 99.9)},
        "gap_ms_p99": round(1000 * percentile(gaps, 99), 2),
        "server_cpu_us_per_token": round(1e6 * float(str(done["cpu_s"])) / (len(clients) * tokens), 1),
    }


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=10_000, help="idle sockets (default: 10,000)")
    parser.add_argument("--streams", type=int, default=256, help="answers at once (default: 256)")
    parser.add_argument("--rate", type=float, default=40.0, help="tokens a second of each (default: 40)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the answers (default: 20)")
    arguments = parser.parse_args()
    raise_file_limit(arguments.idle + arguments.streams)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_measure(arguments))))


if __name__ == "__main__":
    main()
