"""The engine process: ``python -m backend.engine.process FD``. Options come in, then commands; events go out.

One thread reads commands; the main thread alternates between them and steps, and writes the events. When the server's
side of the socket closes, the process ends at once: nobody is left to answer.
"""

import gc
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from backend.engine.loop import EngineLoop
from backend.engine.messages import AreYouThere, Command, Event, IAmThere, Loading, StartFailed
from backend.engine.options import EngineOptions
from backend.engine.overlap import Overlapped, Queued
from backend.engine.wire import FrameReader, encode
from backend.errors import StartError

PROGRESS_SECONDS = 0.05


class Outgoing:
    """Events on their way out, from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, event: Event) -> None:
        """Write one event; blocks while the server does not read."""
        frame = encode(event)
        with self._lock:
            self._connection.sendall(frame)


class Inbox:
    """Commands on their way from the reading thread to the loop. ``there``: answers ``AreYouThere``, in that thread."""

    def __init__(self, reader: FrameReader, there: Callable[[], None]) -> None:
        self._reader = reader
        self._there = there
        self._commands: deque[Command] = deque()
        self._arrived = threading.Event()
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def poke(self) -> None:
        """End a ``take`` that waits; called from any thread."""
        self._arrived.set()

    def take(self, wait_s: float | None) -> list[Command]:
        """All commands that have arrived. With none there, wait up to ``wait_s`` seconds (None: until there is one) for
        the first, or for ``poke``."""
        if wait_s != 0 and not self._commands:
            self._arrived.wait(wait_s)
        self._arrived.clear()
        taken = []
        while self._commands:
            taken.append(self._commands.popleft())
        return taken

    def _read(self) -> None:
        decoder = msgspec.msgpack.Decoder(Command)
        while (frame := self._reader.read()) is not None:
            command = decoder.decode(frame)
            if isinstance(command, AreYouThere):
                self._there()
                continue
            self._commands.append(command)
            self._arrived.set()
        os._exit(0)


def serve(loop: EngineLoop, inbox: Inbox, outgoing: Outgoing) -> None:
    """Run until ``Shutdown``. Commands are taken between steps and while one runs: a cancel frees its pages within one
    step, and whoever comes in time is in the next one, which is planned shortly before the running one ends."""

    def take(wait_s: float | None) -> bool:
        commands = inbox.take(wait_s)
        for command in commands:
            if (answer := loop.handle(command)) is not None:
                outgoing.send(answer)
        return bool(commands)

    while not loop.closing:
        take(None if not loop.has_work else 0.0)
        loop.launch()
        while (spare := loop.spare_s()) > 0 and take(spare):
            pass
        loop.launch()
        if (output := loop.collect()) is not None:
            outgoing.send(output)


def report_loading(connection: socket.socket) -> Callable[[str, int, int], None]:
    """A callback ``(what, done, total)`` that sends ``Loading`` events, not more often than people can see."""
    last = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= PROGRESS_SECONDS:
            last = now
            connection.sendall(encode(Loading(what=what, done=done, total=total)))

    return report


def main() -> None:
    """Entry point of the child process; the argument is the number of an inherited socket."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal or supervisor sends them to all of a group, and the
        signal.signal(number, signal.SIG_IGN)  # server decides when we end: when our socket closes
    connection = socket.socket(fileno=int(sys.argv[1]))
    reader = FrameReader(connection)
    frame = reader.read()
    if frame is None:
        return
    options = msgspec.msgpack.decode(frame, type=EngineOptions)
    outgoing = Outgoing(connection)
    # read from now on: who starts us may go away while we load
    inbox = Inbox(reader, lambda: outgoing.send(IAmThere(loop.step_seconds())))
    gc.disable()  # loading makes a million objects and no garbage: looking for some was a tenth of the time
    try:
        from backend.engine.assembly import assemble  # loads torch: late, so that a closed socket costs nothing

        loop, info = assemble(options, report_loading(connection))
    except StartError as error:
        connection.sendall(encode(StartFailed(code=error.code, message=error.message)))
        return
    gc.freeze()  # never looked at again, so the pauses of later collections are shorter too
    gc.enable()
    connection.sendall(encode(info))
    if isinstance(loop.steps.executor, (Overlapped, Queued)):
        loop.steps.executor.on_done = inbox.poke
    serve(loop, inbox, outgoing)


if __name__ == "__main__":
    main()
