"""The engine as a child process: starts it, speaks frames with it, hands each request its own events.

Knows asyncio and the messages; nothing of text or tensors. When the child dies, every open request ends with an
``error`` output and ``alive`` turns False.
"""

import asyncio
import itertools
import subprocess
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from backend.engine.client import tenant_settings
from backend.engine.event_stream import EventStream
from backend.engine.messages import (
    AreYouThere,
    Cancel,
    Command,
    EngineInfo,
    Event,
    IAmThere,
    Inspect,
    Lane,
    Lanes,
    Load,
    Loading,
    Look,
    LookAtBatch,
    Output,
    PromptPublished,
    PublishPrompt,
    Report,
    Shutdown,
    Snapshot,
    StartFailed,
    StepOutput,
    Submit,
    Tree,
    WithdrawPrompt,
)
from backend.engine.options import EngineOptions
from backend.engine.spawn import EngineChild, spawn_engine
from backend.engine.wire import encode, read_frame
from backend.errors import EngineError, StartError

_decoder = msgspec.msgpack.Decoder(Event)
EMPTY_LOAD = Load()
CLOSE_SECONDS = 5.0

Answer = TypeVar("Answer", Report, PromptPublished, Tree, Lanes, IAmThere)


class ProcessGeneration(EventStream):
    """One request's events, in order. See ``backend.engine.client.Generation``."""

    def __init__(self, client: "ProcessClient", request: int) -> None:
        super().__init__()
        self._client = client
        self._request = request

    def cancel(self) -> None:
        """Free the request in the engine; idempotent."""
        self.close()
        self._client.drop(self._request)


class ProcessClient:
    """An ``EngineClient`` over a socket to a child process. Made by ``connect``."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        info: EngineInfo,
    ) -> None:
        self.info = info
        self.load = EMPTY_LOAD
        self.step_ms = 0.0
        self.process = process
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._generations: dict[int, ProcessGeneration] = {}
        # The engine carries out commands in their order: the oldest question of a kind is the one that is answered.
        self._asked: dict[type, deque[asyncio.Future[Any]]] = {
            kind: deque() for kind in (Report, PromptPublished, Tree, Lanes, IAmThere)
        }
        self._gone = asyncio.Event()
        self._pump = asyncio.create_task(self._read())

    @property
    def alive(self) -> bool:
        """False once the child's side of the socket has closed."""
        return not self._gone.is_set()

    async def gone(self) -> None:
        """Wait until it is."""
        await self._gone.wait()

    async def step_seconds(self) -> float:
        """Ask the process for a sign of life, at any moment: how long its current step has been running."""
        return (await self._ask(AreYouThere(), IAmThere)).step_s

    def next_request_id(self) -> int:
        """Unique within this client."""
        return next(self._ids)

    def generate(self, submit: Submit) -> ProcessGeneration:
        """Send the request; its events are read by iterating over the result."""
        generation = ProcessGeneration(self, submit.request)
        self._generations[submit.request] = generation
        try:
            self._send(submit)
        except EngineError:
            del self._generations[submit.request]
            raise
        return generation

    def drop(self, request: int) -> None:
        """Cancel a request and forget it; unknown ids are ignored."""
        if self._generations.pop(request, None) is not None and self.alive:
            self._send(Cancel(request))

    async def inspect(self, check: bool = False) -> Report:
        """State of the engine between two steps."""
        return await self._ask(Inspect(check), Report)

    async def publish_prompt(self, name: str, prompt: bytes, pin: str = "soft") -> None:
        """Returns when the prompt is registered and pinned; the engine computes it meanwhile."""
        answer = await self._ask(PublishPrompt(name, prompt, pin), PromptPublished)
        if answer.problem:
            raise EngineError(answer.problem, code="prompt_not_published", status=409)

    def withdraw_prompt(self, name: str, prompt: bytes) -> None:
        """Not answered."""
        self._send(WithdrawPrompt(name, prompt))

    def set_tenant(self, tenant: str, weight: float = 1.0, page_limit: int = 0, page_watermark: int = 0) -> None:
        """Not answered: what is wrong is refused here."""
        self._send(tenant_settings(tenant, weight, page_limit, page_watermark))

    async def look(self, tenant: str, everything: bool = False, limit: int = 200) -> Snapshot:
        """The cache between two steps."""
        return (await self._ask(Look(tenant, everything, limit), Tree)).snapshot

    async def lanes(self, tenant: str, everything: bool = False, limit: int = 256) -> list[Lane]:
        """The open requests between two steps."""
        return (await self._ask(LookAtBatch(tenant, everything, limit), Lanes)).lanes

    async def close(self) -> None:
        """Ask the child to end; kill it when it has not within a few seconds."""
        if self.alive:
            self._send(Shutdown())
        try:
            await asyncio.to_thread(self.process.wait, CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        await self._pump
        self._writer.close()

    async def _ask(self, command: Command, kind: type[Answer]) -> Answer:
        """Send a command that the engine answers with a ``kind``, and wait for that."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._send(command)
        self._asked[kind].append(answer)
        return await answer

    def _send(self, command: Command) -> None:
        if not self.alive:
            raise EngineError("the engine is not running", status=503)
        self._writer.write(encode(command))

    async def _read(self) -> None:
        try:
            while (frame := await read_frame(self._reader)) is not None:
                self._dispatch(_decoder.decode(frame))
        finally:
            self._gone.set()
            self._end_all()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, StepOutput):
            self.load = event.load
            self.step_ms = event.step_ms or self.step_ms
            for started in event.started:
                if (generation := self._generations.get(started.request)) is not None:
                    generation.push(started)
            for output in event.outputs:
                find = self._generations.pop if output.finish else self._generations.get
                if (generation := find(output.request, None)) is not None:
                    generation.push(output)
        elif isinstance(event, Report | PromptPublished | Tree | Lanes | IAmThere):
            if isinstance(event, Report):
                self.load = event.load
            answer = self._asked[type(event)].popleft()
            if not answer.done():  # whoever asked may have stopped waiting
                answer.set_result(event)

    def _end_all(self) -> None:
        message = "the engine ended unexpectedly"
        generations, self._generations = self._generations, {}
        for request, generation in generations.items():
            generation.push(Output(request=request, tokens=[], finish="error", code="engine_error", message=message))
        for asked in self._asked.values():
            for answer in asked:
                if not answer.done():
                    answer.set_exception(EngineError(message, status=503))
            asked.clear()


async def start_engine(options: EngineOptions, on_loading: Callable[[Loading], None] | None = None) -> ProcessClient:
    """Start an engine process and wait until it takes requests; see ``connect``."""
    return await connect(spawn_engine(options), on_loading)


async def connect(child: EngineChild, on_loading: Callable[[Loading], None] | None = None) -> ProcessClient:
    """Wait until a process that was spawned takes requests.

    ``on_loading`` is called with the progress of loading. Raises ``StartError`` with the engine's own words when it
    cannot start. Then, and when this is cancelled, the child is killed.
    """
    reader, writer = await asyncio.open_connection(sock=child.connection, limit=1 << 20)
    try:
        info = await _await_ready(child.process, reader, on_loading)
    except BaseException:
        writer.close()
        await asyncio.to_thread(child.end)
        raise
    return ProcessClient(child.process, reader, writer, info)


async def _await_ready(
    process: "subprocess.Popen[bytes]",
    reader: asyncio.StreamReader,
    on_loading: Callable[[Loading], None] | None,
) -> EngineInfo:
    while (frame := await read_frame(reader)) is not None:
        match _decoder.decode(frame):
            case Loading() as loading:
                if on_loading is not None:
                    on_loading(loading)
            case EngineInfo() as info:
                return info
            case StartFailed(code=code, message=message):
                raise StartError(message, code=code)
    status = await asyncio.to_thread(process.wait)
    raise StartError(f"the engine process ended while it was starting (exit status {status})", code="engine_error")
