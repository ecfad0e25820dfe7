"""Minutes of a real server under random use, and what it holds meanwhile: ``python -m benchmarks.soak --minutes 8``.

``banyan serve`` with the bundled model and two tenants. Arrivals are random (Poisson): turns on sockets that end, are
cancelled, or whose client breaks off (TCP reset) and sometimes resumes; answers over HTTP, whole and streamed, that are
read or left; stored conversations that are continued and deleted; the live page's topics; refusals; keys that are made
and revoked. Every ten seconds it notes resident memory of the server and of the engine's process, open files, threads
and rows; at the end, when all is quiet, what is left. It fails (1) if anything of that has grown after the warm-up.
"""

import argparse
import asyncio
import json
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from backend.tenants.database import database_url, open_database
from backend.tenants.tenant_store import TenantStore

_EVERY_SECONDS = 10.0
_QUIET_SECONDS = 110.0  # ended responses are kept for 90 s
_GROWTH_MIB = 4.0  # of the median of the last third over that of the first after the warm-up: less is the allocator's
_SAID_AT_THE_START = (
    "Banyan is ready",
    "  ",
    "banyan: the system prompt ",
    "banyan: system prompts ",
    "banyan: weights: ",
)
_SHOPS = 40  # their prompts are more than the cache holds
_SYSTEM = "You are the assistant of shop {0}.\n" + "\n".join(f"Item {n} costs {n + 3} euros." for n in range(40))


class Sample(msgspec.Struct):
    """The server at one moment. Memory in MiB; ``rows``: of the tables that requests write."""

    at_s: float
    server_mib: float
    engine_mib: float
    server_files: int
    engine_files: int
    threads: int
    rows: dict[str, int]
    started: int


class Visitors:
    """Random clients of one server. ``done``: what they did, by kind."""

    def __init__(self, port: int, keys: dict[str, str], dice: random.Random, tenants: TenantStore) -> None:
        self._socket = f"ws://127.0.0.1:{port}/v1/responses"
        self._keys = keys
        self._dice = dice
        self._tenants = tenants
        self._http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self._stored: list[tuple[str, str]] = []
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._ways: list[Callable[[str], Awaitable[None]]] = [
            self._turns,
            self._cancelled,
            self._broken_off,
            self._resumed,
            self._stored_turns,
            self._completion,
            self._left_stream,
            self._refused,
            self._live_page,
            self._revoked,
        ]

    async def come(self, rate: float, seconds: float) -> None:
        """``rate`` arrivals a second for so long; returns when all have left."""
        async with asyncio.TaskGroup() as group:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await asyncio.sleep(self._dice.expovariate(rate))
                group.create_task(self._visit(self._dice.choice(self._ways)))
        await self._http.aclose()

    async def _visit(self, way: Callable[[str], Awaitable[None]]) -> None:
        name = way.__name__.strip("_")
        try:
            async with asyncio.timeout(120):
                await way(self._dice.choice(list(self._keys)))
            self.done[name] += 1
        except Exception as error:
            self.failed[f"{name}: {type(error).__name__} {str(error)[:120]}"] += 1

    def _connect(self, tenant: str, key: str = "", **options: object) -> connect:
        headers = {"authorization": f"Bearer {key or self._keys[tenant]}"}
        return connect(self._socket, additional_headers=headers, compression=None, proxy=None, **options)  # type: ignore[arg-type]

    def _create(self, **fields: object) -> str:
        system = _SYSTEM.format(self._dice.randrange(_SHOPS))
        question = f"How much is item {self._dice.randrange(60)}?"
        tokens = self._dice.randint(1, 40)
        event = {"type": "response.create", "instructions": system, "input": question, "max_output_tokens": tokens}
        return json.dumps(event | fields)

    async def _until(self, socket: ClientConnection, *kinds: str) -> dict[str, object]:
        async for message in socket:
            event: dict[str, object] = json.loads(message)
            if event["type"] in kinds:
                return event
            if event["type"] in ("error", "response.failed"):
                raise RuntimeError(json.dumps(event)[:200])
        raise RuntimeError("the socket was closed")

    async def _turns(self, tenant: str) -> None:
        async with self._connect(tenant) as socket:
            before: dict[str, object] = {}
            for _ in range(self._dice.randint(1, 3)):
                await socket.send(self._create(**before))
                end = await self._until(socket, "response.completed", "response.incomplete")
                before = {"previous_response_id": end["response"]["id"]}  # type: ignore[index]

    async def _cancelled(self, tenant: str) -> None:
        async with self._connect(tenant) as socket:
            await socket.send(self._create(stream_id="a", max_output_tokens=200))
            await asyncio.sleep(self._dice.random() * 0.3)
            await socket.send('{"type": "response.cancel", "stream_id": "a"}')
            await self._until(socket, "response.completed", "response.incomplete")

    async def _broken_off(self, tenant: str, **options: object) -> None:
        socket = await self._connect(tenant, **options)
        await socket.send(self._create(max_output_tokens=200))
        await asyncio.sleep(self._dice.random() * 0.3)
        socket.transport.abort()

    async def _resumed(self, tenant: str) -> None:
        socket = await self._connect(tenant, subprotocols=["banyan.v1"])
        await socket.send(self._create(max_output_tokens=60))
        created = await self._until(socket, "response.created")
        socket.transport.abort()
        resume = {"type": "x.resume", "response_id": created["response"]["id"], "after": created["sequence_number"]}  # type: ignore[index]
        if self._dice.random() < 0.5:
            return  # nobody comes back: it ends after the grace
        async with self._connect(tenant, subprotocols=["banyan.v1"]) as again:
            await again.send(json.dumps(resume))
            await self._until(again, "response.completed", "response.incomplete")

    async def _ask(self, tenant: str, path: str, body: object) -> httpx2.Response:
        return await self._http.post(path, json=body, headers={"authorization": f"Bearer {self._keys[tenant]}"})

    async def _stored_turns(self, tenant: str) -> None:
        body = json.loads(self._create(store=True))
        del body["type"]
        if self._stored and self._dice.random() < 0.5:
            owner, found = self._dice.choice(self._stored)
            tenant, body["previous_response_id"] = owner, found
        answer = await self._ask(tenant, "/v1/responses", body)
        answer.raise_for_status()
        self._stored.append((tenant, answer.json()["id"]))
        if len(self._stored) > 40:  # so that what is stored comes to a size and stays there
            owner, found = self._stored.pop(0)
            headers = {"authorization": f"Bearer {self._keys[owner]}"}
            (await self._http.delete(f"/v1/responses/{found}", headers=headers)).raise_for_status()

    def _chat(self, **fields: object) -> dict[str, object]:
        asked = json.loads(self._create())
        messages = [{"role": "system", "content": asked["instructions"]}, {"role": "user", "content": asked["input"]}]
        return {"model": "banyan-demo", "messages": messages, "max_tokens": asked["max_output_tokens"], **fields}

    async def _completion(self, tenant: str) -> None:
        body = self._chat(n=self._dice.randint(1, 3), logprobs=self._dice.random() < 0.3)
        (await self._ask(tenant, "/v1/chat/completions", body)).raise_for_status()

    async def _left_stream(self, tenant: str) -> None:
        headers = {"authorization": f"Bearer {self._keys[tenant]}"}
        body = self._chat(stream=True, max_tokens=200)
        async with self._http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            async for _ in answer.aiter_lines():
                if self._dice.random() < 0.1:
                    return

    async def _refused(self, tenant: str) -> None:
        for body in (self._chat(messages=[]), self._chat(messages="x" * 5000), self._chat(n=1000)):
            status = (await self._ask(tenant, "/v1/chat/completions", body)).status_code
            if status != 400:
                raise RuntimeError(f"{status} and not 400")
        if (await self._http.post("/v1/responses", json={}, headers={"authorization": "Bearer no"})).status_code != 401:
            raise RuntimeError("a wrong key was taken")

    async def _live_page(self, tenant: str) -> None:
        async with self._connect(tenant, subprotocols=["banyan.v1"]) as socket:
            await socket.send('{"type": "x.subscribe", "topics": ["stats", "tree", "batch"], "max_hz": 4}')
            for _ in range(self._dice.randint(1, 12)):
                await self._until(socket, "x.stats", "x.tree", "x.batch")

    async def _revoked(self, tenant: str) -> None:
        key = await asyncio.to_thread(self._tenants.add_key, tenant, actor="soak", live_keys=100)
        await asyncio.sleep(1.0)
        async with self._connect(tenant, key.secret) as socket:
            await asyncio.to_thread(self._tenants.revoke_key, key.key.id, actor="soak")
            await socket.wait_closed()
            if socket.close_code != 4401:
                raise RuntimeError(f"closed with {socket.close_code}")


class Watch:
    """Looks at the server's two processes and its database."""

    def __init__(self, server: int, data: Path) -> None:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        self._server, self._engine = server, int(children[0])
        self._database = sqlite3.connect(f"file:{data / 'banyan.db'}?mode=ro", uri=True)
        self._began = time.monotonic()
        self.samples: list[Sample] = []

    def look(self, started: int) -> Sample:
        """One more sample."""
        rows = {
            table: self._database.execute(f"select count(*) from {table}").fetchone()[0]
            for table in ("responses", "usage", "usage_hours", "keys", "audit")
        }
        found = Sample(
            round(time.monotonic() - self._began, 1),
            _resident_mib(self._server),
            _resident_mib(self._engine),
            _files(self._server),
            _files(self._engine),
            len(list(Path(f"/proc/{self._server}/task").iterdir())),
            rows,
            started,
        )
        self.samples.append(found)
        print(json.dumps(msgspec.to_builtins(found)), file=sys.stderr, flush=True)
        return found

    async def look_for_ever(self, visitors: Visitors) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            self.look(visitors.done.total() + visitors.failed.total())


def _resident_mib(pid: int) -> float:
    (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(line) / 1024, 1)


def _files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def grown(samples: list[Sample], warm_s: float) -> list[str]:
    """What has grown after the warm-up: medians of the last third against the first."""
    warm = [sample for sample in samples if sample.at_s >= warm_s]
    third = len(warm) // 3
    if not third:
        return ["the run was too short to tell: nothing after the warm-up"]
    found = []
    for name, most in (("server_mib", _GROWTH_MIB), ("engine_mib", _GROWTH_MIB), ("threads", 2)):
        before, after = (
            statistics.median(getattr(sample, name) for sample in part) for part in (warm[:third], warm[-third:])
        )
        if after - before > most:
            found.append(f"{name}: {before} then {after}")
    return found


def left(before: Sample, after: Sample, metrics: str) -> list[str]:
    """What is there when all is quiet that was not there before the first request."""
    found = []
    for name in ("server_files", "engine_files"):
        was, now = getattr(before, name), getattr(after, name)
        if now > was + 6:  # SQLite's second connection and its journal stay open
            found += [f"{name}: {was} then {now}"]
    held = r'^banyan:(num_requests_(?:running|waiting)|kv_pages\{state="(?:private|pending)"\}) (\S+)'
    gauges = re.findall(held, metrics, re.MULTILINE)
    if len(gauges) != 4:
        found.append(f"/metrics does not say what is held: {gauges}")
    return found + [f"{name}: {value}" for name, value in gauges if float(value)]


async def _soak(port: int, server: int, data: Path, arguments: argparse.Namespace) -> dict[str, object]:
    database = open_database(database_url("", data))
    tenants = TenantStore(database, time.time)
    keys = {}
    for name in ("a", "b"):
        tenants.add(name, actor="soak")
        keys[name] = tenants.add_key(name, actor="soak").secret
    operator = tenants.add_key("a", actor="soak", scopes=("chat", "admin"), live_keys=100).secret
    await asyncio.sleep(1.0)
    watch, visitors = Watch(server, data), Visitors(port, keys, random.Random(arguments.seed), tenants)
    before = watch.look(0)
    looking = asyncio.create_task(watch.look_for_ever(visitors))
    await visitors.come(arguments.rate, 60 * arguments.minutes)
    await asyncio.sleep(_QUIET_SECONDS)
    looking.cancel()
    busy = [sample for sample in watch.samples if sample.at_s <= 60 * arguments.minutes]
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {operator}"}) as client:
        metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    after = watch.look(visitors.done.total() + visitors.failed.total())
    database.close()
    return {
        "minutes": arguments.minutes,
        "visits": visitors.done,
        "failed": visitors.failed,
        "before": before,
        "after_a_third": next(sample for sample in busy if sample.at_s >= 20 * arguments.minutes),
        "at_the_end": busy[-1],
        "when_quiet": after,
        "grown": grown(busy, 20 * arguments.minutes),
        "left": left(before, after, metrics),
    }


def _ready(server: "subprocess.Popen[str]", log: Path) -> int:
    for _ in range(1200):
        if "requests at once" in (said := log.read_text()):
            return int(re.findall(r"http://[\d.]+:(\d+)", said)[0])
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


def main() -> int:
    """Use, watch, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="of use; a third is warm-up (default: 8)")
    parser.add_argument("--rate", type=float, default=3.0, help="arrivals a second (default: 3)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log, data = Path(folder) / "log", Path(folder) / "data"
        command = [sys.executable, "-m", "backend.cli.main", "serve", "--port", "0", "--data-dir", str(data)]
        with log.open("w") as said:
            server = subprocess.Popen([*command, "--kv-memory", "64MiB", "--threads", "1"], stderr=said, text=True)
        try:
            result = asyncio.run(_soak(_ready(server, log), server.pid, data, arguments))
        finally:
            server.terminate()
            ended = server.wait(120)
        complaints = [line for line in log.read_text().splitlines() if not line.startswith(_SAID_AT_THE_START)]
        result["exit_code"], result["complaints"] = ended, complaints
    print(msgspec.json.encode(result).decode())
    return int(bool(result["grown"] or result["left"] or result["failed"] or ended or complaints))


if __name__ == "__main__":
    sys.exit(main())
