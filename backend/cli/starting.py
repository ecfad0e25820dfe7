"""From an engine that loads to a server that runs: its half of ``banyan serve`` is imported and made meanwhile.

Knows what goes on at the same time, what is said on the terminal, and what a signal does before the server is there.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from backend import config
from backend.cli import checkpoint
from backend.cli.loading import LoadingBar
from backend.engine.process_client import ProcessClient, connect
from backend.engine.spawn import EngineChild

if TYPE_CHECKING:
    from backend.server.tenancy import Tenancy

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(
    options: config.ServeOptions,
    found: checkpoint.Checkpoint,
    listener: socket.socket,
    child: EngineChild,
    tenancy: "Tenancy | None" = None,
) -> int:
    """``serve`` in an event loop of its own."""
    with asyncio.Runner(loop_factory=None if sys.platform == "win32" else _uvloop) as runner:
        return runner.run(serve(options, found, listener, child, Console(stderr=True), tenancy))


async def serve(
    options: config.ServeOptions,
    found: checkpoint.Checkpoint,
    listener: socket.socket,
    child: EngineChild,
    console: Console,
    tenancy: "Tenancy | None" = None,
) -> int:
    """Serve on ``listener`` until a signal comes, close the engine. Returns the exit code.

    Raises ``StartError``: the engine, the database or the address. ``tenancy``: when it has been opened already.
    """
    interrupted = asyncio.Event()
    with _signals_set(interrupted):
        opening = asyncio.create_task(asyncio.to_thread(_open_tenancy, options, console, tenancy))
        with LoadingBar(console) as bar:
            started = await _unless_interrupted(asyncio.create_task(connect(child, bar.show)), opening, interrupted)
        if started is None:
            return 0
        from backend.cli import serving  # it is there: the thread has imported it

        return await serving.serve(*started, options, found, listener, interrupted, console)


def _open_tenancy(options: config.ServeOptions, console: Console, opened: "Tenancy | None") -> "Tenancy":
    from backend.cli import serving

    return opened or serving.open_tenancy(options, console)


async def _unless_interrupted(
    connecting: asyncio.Task[ProcessClient], opening: "asyncio.Task[Tenancy]", interrupted: asyncio.Event
) -> "tuple[ProcessClient, Tenancy] | None":
    """Both results, or None when a signal comes before them. Then, and when one fails, no engine is left."""
    both = asyncio.gather(connecting, opening)
    signalled = asyncio.create_task(interrupted.wait())
    await asyncio.wait((both, signalled), return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if both.done() and both.exception() is None:
        client, tenancy = both.result()
        return client, tenancy
    error = both.exception() if both.done() else None
    await _end(connecting)
    if error is not None:
        raise error
    return None


async def _end(connecting: asyncio.Task[ProcessClient]) -> None:
    """The process of an engine that is not wanted any more ends, whether it has come up or not."""
    connecting.cancel()
    (client,) = await asyncio.gather(connecting, return_exceptions=True)
    if isinstance(client, ProcessClient):
        await client.close()


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # not there on Windows

    return uvloop.new_event_loop()


@contextlib.contextmanager
def _signals_set(event: asyncio.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set ``event`` instead of ending the process."""
    if sys.platform == "win32":  # asyncio has no signal handlers there: Ctrl-C stays KeyboardInterrupt
        yield
        return
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, event.set)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
