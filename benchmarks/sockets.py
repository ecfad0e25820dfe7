"""What sockets cost: memory of idle ones, and what one core delivers: ``python -m benchmarks.sockets``.

The server runs in a process of its own, on one core if there are more, before an engine that computes nothing: each
step it says one token for each open request. Clients are as small as can be, so that they are not what is measured.

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
import tempfile
import time
from array import array
from itertools import count
from pathlib import Path

from backend.engine.client import tenant_settings
from backend.engine.event_stream import EventStream
from backend.engine.messages import EngineInfo, Lane, Load, Output, Report, Snapshot, Started, Submit
from backend.server.limits import Limits

_PAGE_BYTES = resource.getpagesize()
_ANSWER = "A croissant costs three euros and the bread is baked at seven in the morning. "


# ---- the server's side ---------------------------------------------------------------------------


class _Generation(EventStream):
    def __init__(self, engine: "Metronome", request: int) -> None:
        super().__init__()
        self._engine = engine
        self._request = request

    def cancel(self) -> None:
        self._engine.open.pop(self._request, None)
        self.close()


class Metronome:
    """An ``EngineClient`` that says one token of ``answer`` a step for every request. ``beats``: when each step was;
    ``first``: of each request, the step of its first token."""

    def __init__(self, answer: list[int], vocab_size: int, rate: float) -> None:
        self.info = EngineInfo("stub", 0, vocab_size, 1 << 20, 16, 1024, 1024, "float32", "cpu", 0, 0)
        self.load = Load()
        self.step_ms = 1000 / rate
        self.alive = True
        self.open: dict[int, tuple[_Generation, int, int]] = {}
        self.beats = array("d")
        self.first: dict[int, int] = {}
        self._answer = answer
        self._rate = rate
        self._ids = count(1)

    def next_request_id(self) -> int:
        return next(self._ids)

    def generate(self, submit: Submit) -> _Generation:
        generation = _Generation(self, submit.request)
        generation.push(Started(submit.request, 0, 0.0))
        self.open[submit.request] = (generation, 0, submit.max_tokens)
        return generation

    async def beat(self) -> None:
        """Step until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 1 / self._rate
            await asyncio.sleep(max(due - loop.time(), 0))
            self.beats.append(time.monotonic())
            for request, (generation, said, most) in list(self.open.items()):
                self.first.setdefault(request, len(self.beats) - 1)
                finish = "length" if said + 1 >= most else ""
                if finish:
                    del self.open[request]
                else:
                    self.open[request] = (generation, said + 1, most)
                generation.push(Output(request, [self._answer[said % len(self._answer)]], finish))

    async def inspect(self, check: bool = False) -> Report:
        return Report(self.load)

    async def look(self, tenant: str, everything: bool = False, limit: int = 200) -> Snapshot:
        return Snapshot([], 0, 0)

    async def lanes(self, tenant: str, everything: bool = False, limit: int = 256) -> list[Lane]:
        return []

    async def publish_prompt(self, name: str, prompt: bytes, pin: str = "soft") -> None: ...

    def withdraw_prompt(self, name: str, prompt: bytes) -> None: ...

    def set_tenant(self, tenant: str, weight: float = 1.0, page_limit: int = 0, page_watermark: int = 0) -> None:
        tenant_settings(tenant, weight, page_limit, page_watermark)

    async def close(self) -> None: ...


async def _serve(rate: float) -> None:
    """Serve until stdin closes; the port, then at the end what the engine did, as lines of JSON on stdout."""
    import uvicorn

    import backend
    from backend.server.app import create_app
    from backend.server.listening import bound_send_buffers
    from backend.server.run import spare_collections, uvicorn_config
    from backend.server.service import ChatService
    from backend.text.tokenizer import TextTokenizer

    folder = Path(backend.__file__).parent / "demo" / "model"
    tokenizer = TextTokenizer.load(folder)
    engine = Metronome(tokenizer.encode_plain(_ANSWER), tokenizer.vocab_size, rate)
    limits = Limits(sockets_per_key=1 << 20, first_message_seconds=3600.0, idle_seconds=3600.0)
    service = ChatService(engine, folder, "stub", None, limits)
    with tempfile.TemporaryDirectory() as no_page:
        app = create_app(service, Path(no_page))
    config = uvicorn_config(app, "127.0.0.1", 0, log_level="warning")
    listener = _listener()
    bound_send_buffers(listener)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    beating = asyncio.create_task(engine.beat())
    while not server.started:
        await asyncio.sleep(0.01)
    spare_collections()
    cpu = time.process_time()
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    cpu = time.process_time() - cpu
    print(json.dumps({"beats": engine.beats.tolist(), "first": engine.first, "cpu_s": cpu}), flush=True)
    beating.cancel()
    server.should_exit = server.force_exit = True
    await serving


def _listener():  # type: ignore[no-untyped-def]
    import socket

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener


# ---- the clients' side ---------------------------------------------------------------------------


class _Client(asyncio.Protocol):
    """A WebSocket that notes when each text frame came and answers pings. ``texts``: those of the first frames."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deltas = array("d")
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16))
        transport.write(
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
        assert self._transport is not None
        if opcode == 9:
            self._transport.write(bytes([0x8A, 0x80 | len(body)]) + bytes(4) + body)
        elif b'"response.output_text.delta"' in body[:60]:
            self.deltas.append(now)
        elif b'"response.incomplete"' in body[:60] and not self.ended.done():
            self.ended.set_result(None)

    def say(self, event: dict[str, object]) -> None:
        body = json.dumps(event).encode()
        assert self._transport is not None and len(body) < 126
        self._transport.write(bytes([0x81, 0x80 | len(body)]) + bytes(4) + body)

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.opened, self.ended):
            if not future.done():
                future.set_exception(ConnectionError("the server closed the socket"))
                future.exception()


async def _open(port: int, number: int, at_once: int = 64) -> list[_Client]:
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    while len(clients) < number:
        some = min(at_once, number - len(clients))
        made = await asyncio.gather(*(loop.create_connection(_Client, "127.0.0.1", port) for _ in range(some)))
        await asyncio.gather(*(client.opened for _, client in made))
        clients += [client for _, client in made]
    return clients


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


async def _measure(arguments: argparse.Namespace) -> dict[str, object]:
    cores = sorted(os.sched_getaffinity(0))
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sockets", "--serve", "--rate", str(arguments.rate)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        if len(cores) > 1:
            os.sched_setaffinity(child.pid, cores[:1])
            os.sched_setaffinity(0, cores[1:])
        port = json.loads(child.stdout.readline())["port"]
        result: dict[str, object] = {}
        warm = await _open(port, 50)
        if arguments.idle:
            before = _resident_bytes(child.pid)
            began = time.monotonic()
            idle = await _open(port, arguments.idle)
            opened = time.monotonic() - began
            await asyncio.sleep(1.0)
            each = (_resident_bytes(child.pid) - before) / len(idle)
            result["idle"] = {"sockets": len(idle), "kib_each": round(each / 1024, 1), "open_s": round(opened, 1)}
        if arguments.streams:
            clients = await _open(port, arguments.streams)
            tokens = int(arguments.seconds * arguments.rate)
            for client in clients:
                client.say({"type": "response.create", "input": "Hi", "max_output_tokens": tokens})
                await asyncio.sleep(0.001)
            await asyncio.gather(*(client.ended for client in clients))
        child.stdin.close()
        done = json.loads(child.stdout.readline())
        if arguments.streams:
            result["streams"] = _delivery(clients, done, arguments, tokens)
        del warm
        return result
    finally:
        child.kill()
        child.wait()


def _delivery(
    clients: list[_Client], done: dict[str, object], arguments: argparse.Namespace, tokens: int
) -> dict[str, object]:
    beats, first = done["beats"], done["first"]
    assert isinstance(beats, list) and isinstance(first, dict)
    delays, gaps = [], []
    delivered = merged = 0
    firsts = [first[key] for key in sorted(first, key=int)]
    start, end = max(client.deltas[0] for client in clients), min(client.deltas[-1] for client in clients)
    for client, began in zip(clients, firsts, strict=True):
        delivered += sum(start <= at <= end for at in client.deltas)
        merged += tokens - len(client.deltas)
        gaps += [b - a for a, b in zip(client.deltas, client.deltas[1:], strict=False)]
        if len(client.deltas) == tokens:
            delays += [1000 * (at - beats[began + i]) for i, at in enumerate(client.deltas)]
    delays.sort()
    gaps.sort()
    return {
        "streams": len(clients),
        "asked_per_s": len(clients) * arguments.rate,
        "tokens_per_s": round(delivered / (end - start), 1),
        "merged_or_held": merged,
        "delay_ms": {f"p{q}": round(delays[min(len(delays) * q // 100, len(delays) - 1)], 2) for q in (50, 99)},
        "gap_ms_p99": round(1000 * gaps[len(gaps) * 99 // 100], 2),
        "server_cpu_us_per_token": round(1e6 * float(str(done["cpu_s"])) / (len(clients) * tokens), 1),
    }


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=10_000, help="idle sockets (default: 10,000)")
    parser.add_argument("--streams", type=int, default=256, help="answers at once (default: 256)")
    parser.add_argument("--rate", type=float, default=40.0, help="tokens a second of each (default: 40)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the answers (default: 20)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    wanted = 2 * (arguments.idle + arguments.streams) + 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    if arguments.serve:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(arguments.rate))
        return
    print(json.dumps(asyncio.run(_measure(arguments))))


if __name__ == "__main__":
    main()
