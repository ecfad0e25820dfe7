"""A server before an engine that computes nothing: each step it says one token for each open request.

For benchmarks of what the server itself costs: ``python -m benchmarks.metronome`` serves until its stdin closes, then
tells what the engine did.
"""

import argparse
import asyncio
import json
import resource
import socket
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

_ANSWER = "A croissant costs three euros and the bread is baked at seven in the morning. "


class _Generation(EventStream):
    def __init__(self, engine: "Metronome", submit: Submit) -> None:
        super().__init__()
        self.request = submit.request
        self.said = 0
        self.most = submit.max_tokens
        self._engine = engine

    def cancel(self) -> None:
        self._engine.open.pop(self.request, None)
        self.close()


class Metronome:
    """An ``EngineClient`` that says one token of ``answer`` a step for every request. ``beats``: when each step was;
    ``first``: of each request, the step of its first token."""

    def __init__(self, answer: list[int], vocab_size: int, rate: float) -> None:
        self.info = EngineInfo("stub", 0, vocab_size, 1 << 20, 16, 1024, 1024, "float32", "cpu", 0, 0)
        self.load = Load()
        self.step_ms = 1000 / rate
        self.alive = True
        self.open: dict[int, _Generation] = {}
        self.beats = array("d")
        self.first: dict[int, int] = {}
        self._answer = answer
        self._rate = rate
        self._ids = count(1)

    def next_request_id(self) -> int:
        return next(self._ids)

    def generate(self, submit: Submit) -> _Generation:
        generation = _Generation(self, submit)
        generation.push(Started(submit.request, 0, 0.0))
        self.open[submit.request] = generation
        self.first[submit.request] = len(self.beats)
        return generation

    async def beat(self) -> None:
        """Step until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += 1 / self._rate
            await asyncio.sleep(max(due - loop.time(), 0))
            self.beats.append(time.monotonic())
            for generation in list(self.open.values()):
                token = self._answer[generation.said % len(self._answer)]
                generation.said += 1
                if generation.said < generation.most:
                    generation.push(Output(generation.request, [token]))
                else:
                    del self.open[generation.request]
                    generation.push(Output(generation.request, [token], "length"))

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


async def serve(rate: float) -> None:
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
    config = uvicorn_config(app, "127.0.0.1", 0, log_level="critical")
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


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    return listener


def raise_file_limit(sockets: int) -> None:
    """Let this process and its children have so many open, as far as it may."""
    wanted = 2 * sockets + 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def main() -> None:
    """Serve."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=40.0, help="steps a second (default: 40)")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.rate))


if __name__ == "__main__":
    main()
