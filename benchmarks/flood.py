"""A flood beside somebody who chats: ``python -m benchmarks.flood``.

``banyan serve`` with the bundled model and two tenants. One opens thousands of WebSockets, far above its limit, and
holds what it gets; then says rubbish on these; then holds thousands of TCP connections that never say anything. The
other asks the same greedy question again and again: its answer must not change, and its time is measured.
"""

import argparse
import asyncio
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

from backend.tenants.database import database_url, open_database
from backend.tenants.tenant_store import TenantStore

_AT_ONCE = 200
_PHASE_SECONDS = 90.0  # none takes longer; what has not happened by then is counted as such
_RUBBISH = (b"{", b'{"type": "\xff"}', b"[" * 10_000, b'{"type": "x.nothing"}', b"null")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Canary:
    """Asks one question over and over. ``answers``: each text that came, with its milliseconds, by phase."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self.texts: Counter[str] = Counter()
        self.ms: dict[str, list[float]] = {}

    async def ask(self, phase: str) -> None:
        """One request over a new connection."""
        began = time.monotonic()
        body = {"input": "How much is a croissant?", "prompt": None, "temperature": 0, "max_output_tokens": 24}
        status, answer = await _post(self._port, "/v1/responses", self._key, body)
        text = json.loads(answer)["output"][0]["content"][0]["text"] if status == 200 else f"status {status}"
        self.texts[text] += 1
        self.ms.setdefault(phase, []).append(1000 * (time.monotonic() - began))

    async def during(self, phase: str, work: Awaitable[object]) -> None:
        """Ask until ``work`` is done, at least five times."""
        task = asyncio.ensure_future(work)
        while not task.done() or len(self.ms.get(phase, ())) < 5:
            await self.ask(phase)
            await asyncio.sleep(0.05)
        await task

    def summary(self) -> dict[str, dict[str, float]]:
        """By phase."""
        return {
            phase: {"asked": len(ms), "median_ms": round(statistics.median(ms), 1), "max_ms": round(max(ms), 1)}
            for phase, ms in self.ms.items()
        }


async def _post(port: int, path: str, key: str, body: object) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = json.dumps(body).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        + payload
    )
    head, _, answer = (await asyncio.wait_for(reader.read(), _PHASE_SECONDS)).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), answer


async def _handshake(port: int, key: str) -> tuple[str, Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        "GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Authorization: Bearer {key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split()[1].decode(), (reader, writer)


async def _handshakes(port: int, key: str, number: int) -> tuple[Counter[str], list[Streams]]:
    """Statuses of so many upgrades, and what was accepted, still open."""
    statuses: Counter[str] = Counter()
    held: list[Streams] = []
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with gate:
            try:
                status, streams = await _handshake(port, key)
            except (OSError, asyncio.IncompleteReadError) as error:
                statuses[type(error).__name__] += 1
                return
            statuses[status] += 1
            if status == "101":
                held.append(streams)
            else:
                streams[1].close()

    await _bounded([one() for _ in range(number)], statuses)
    return statuses, held


async def _rubbish(held: list[Streams]) -> Counter[str]:
    """Say rubbish on each socket until the server closes it; the codes that it closed with."""
    codes: Counter[str] = Counter()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        code = "none"
        try:
            for index in range(200):
                writer.write(_frame(_RUBBISH[index % len(_RUBBISH)]))
                said = await reader.read(1 << 16)
                if b"\x88" in said:
                    close = said.rindex(b"\x88")
                    code = str(int.from_bytes(said[close + 2 : close + 4], "big"))
                if code != "none" or not said:
                    break
        except ConnectionError:
            code = "reset"
        codes[code] += 1
        writer.close()

    await _bounded([one(*streams) for streams in held], codes)
    return codes


async def _silent(port: int, number: int, seconds: float) -> Counter[str]:
    """Hold so many TCP connections that say nothing for ``seconds``; how many stood."""
    opened: Counter[str] = Counter()
    held: list[Streams] = []
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with gate:
            try:
                held.append(await asyncio.open_connection("127.0.0.1", port))
                opened["open"] += 1
            except OSError as error:
                opened[type(error).__name__] += 1

    await _bounded([one() for _ in range(number)], opened)
    await asyncio.sleep(seconds)
    opened["closed by the server"] = sum(reader.at_eof() for reader, _ in held)
    for _, writer in held:
        writer.close()
    return opened


async def _bounded(work: list[Awaitable[None]], counted: Counter[str]) -> None:
    done, late = await asyncio.wait([asyncio.ensure_future(one) for one in work], timeout=_PHASE_SECONDS)
    for task in late:
        task.cancel()
        counted["not within the time"] += 1
    for task in done:
        task.result()


def _frame(body: bytes) -> bytes:
    size = bytes([0x80 | len(body)]) if len(body) < 126 else bytes([0x80 | 126]) + len(body).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + body


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


async def _measure(server: subprocess.Popen[str], port: int, keys: dict[str, str], number: int) -> dict[str, object]:
    canary = Canary(port, keys["canary"])
    await canary.ask("first")
    for _ in range(10):
        await canary.ask("before")
    result: dict[str, object] = {"resident_mib_before": _resident_mib(server.pid)}
    began = time.monotonic()
    flood = asyncio.ensure_future(_handshakes(port, keys["flood"], number))
    await canary.during("while sockets are opened", flood)
    statuses, held = flood.result()
    result["handshakes"] = {"asked": number, "answers": statuses, "seconds": round(time.monotonic() - began, 1)}
    rubbish = asyncio.ensure_future(_rubbish(held))
    await canary.during("while rubbish is said", rubbish)
    result["rubbish"] = {"sockets": len(held), "closed_with": rubbish.result()}
    silent = asyncio.ensure_future(_silent(port, number, 13.0))
    await canary.during("while connections are silent", silent)
    result["silent_connections"] = silent.result()
    await asyncio.sleep(2.0)
    for _ in range(10):
        await canary.ask("after")
    again, held = await _handshakes(port, keys["flood"], 64)
    result["sockets_of_the_key_afterwards"] = again
    for _, writer in held:
        writer.close()
    result["resident_mib_after"] = _resident_mib(server.pid)
    result["canary"] = canary.summary()
    result["canary_texts"] = len(canary.texts)
    return result


def _keys(folder: Path) -> dict[str, str]:
    database = open_database(database_url("", folder))
    tenants = TenantStore(database, time.time)
    keys = {}
    for name in ("canary", "flood"):
        tenants.add(name, actor="benchmark")
        keys[name] = tenants.add_key(name, actor="benchmark").secret
    database.close()
    return keys


def _ready(server: subprocess.Popen[str], log: Path) -> int:
    for _ in range(1200):
        said = log.read_text()
        if "requests at once" in said:
            return int(re.findall(r"http://[\d.]+:(\d+)", said)[0])
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {said}")


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, default=5000, help="in each phase (default: 5,000)")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 2 * arguments.sockets + 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    with tempfile.TemporaryDirectory() as folder:
        keys = _keys(Path(folder))
        command = [sys.executable, "-m", "backend.cli.main", "serve", "--port", "0", "--data-dir", folder]
        log = Path(folder) / "log"
        with log.open("w") as said:
            server = subprocess.Popen([*command, "--kv-memory", "64MiB"], stderr=said, text=True)
        try:
            result = asyncio.run(_measure(server, _ready(server, log), keys, arguments.sockets))
            result["lines_in_the_log"] = len(log.read_text().splitlines())
            print(json.dumps(result))
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main()
