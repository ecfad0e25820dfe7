"""``banyan serve``: settles the options, finds the model, starts engine and server, and ends both in order.

Knows what starts after what, and what is said on the terminal meanwhile. The listening socket is taken before the model
is loaded, so that a port in use is noticed at once.
"""

import argparse
import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import uvicorn
from rich.console import Console

from backend import config
from backend.cli import checkpoint
from backend.cli.loading import LoadingBar
from backend.engine.messages import EngineInfo
from backend.engine.options import EngineOptions
from backend.engine.process_client import ProcessClient, start_engine
from backend.engine.supervised import SupervisedEngine
from backend.errors import BanyanError, StartError
from backend.server.app import create_app
from backend.server.callers import Callers
from backend.server.draining import drain
from backend.server.engine_settings import EngineSettings
from backend.server.limits import Limits
from backend.server.prompts import PromptRegistry
from backend.server.publishing import publish_prompts
from backend.server.run import bound_send_buffers, uvicorn_config
from backend.server.service import ChatService
from backend.server.tenancy import Tenancy
from backend.server.tracing import NoTracing, Tracing, open_tracing
from backend.server.warming import warming
from backend.tenants.database import database_url, open_database

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command; its options are the table of ``backend.config``."""
    parser = commands.add_parser(
        "serve",
        help="start the server",
        description="Serve a model over WebSocket and HTTP, with a web page to chat on.",
        epilog="Each option can also be set by its environment variable, or in the TOML file under its name without "
        'the dashes (port = 9000, kv-memory = "2GiB"). The command line wins over the environment, that over the file.',
    )
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``backend.config``."""
    for option in config.SERVE_OPTIONS:
        default = str(option.default)
        if option is config.MODEL:
            parser.add_argument(
                "model", nargs="?", metavar="MODEL", help=f"{option.help}; default: the bundled demo model"
            )
            continue
        if option is config.DATA_DIR:
            default = "the platform's folder for user data"
        if option is config.DATABASE:
            default = "banyan.db in the data folder"
        parser.add_argument(
            f"--{option.name}",
            metavar=option.metavar,
            help=f"{option.help} (default: {default}; environment: {option.variable})",
        )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file with any of these options; unknown keys are refused"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted; the exit code."""
    options = config.resolve(vars(arguments), config_file=arguments.config)
    console = Console(stderr=True)
    tenancy = open_tenancy(options, console)
    listener = take_port(options.host, options.port)
    with contextlib.closing(listener):
        if (
            checkpoint.is_download(options.model) and not console.is_terminal
        ):  # on a terminal the hub's library has bars
            _say(console, f"banyan: {options.model}: taken from the hub, or from the copy that is here")
        found = checkpoint.locate(options.model, options.data_dir)
        with asyncio.Runner(loop_factory=None if sys.platform == "win32" else _uvloop) as runner:
            return runner.run(serve(options, found, listener, console, tenancy))


def open_tenancy(options: config.ServeOptions, console: Console) -> Tenancy:
    """Tenants as the database has them. Raises ``StartError``: the database cannot be used, or others reach the address
    and there are no keys.

    A data folder in which nothing can be made is no reason not to start: then nobody can be configured there, and the
    local tenant has its chat, with a warning.
    """
    url = database_url(options.database, options.data_dir)
    try:
        database = open_database(url)
    except StartError as error:
        if options.database or Path(str(url.database)).exists():
            raise
        database = None
        _say(console, f"banyan: nothing is kept, neither conversations nor usage: {error.message}")
    try:
        tenancy = Tenancy(
            database, PromptRegistry.load(checkpoint.DEMO_PROMPTS), local=config.is_loopback(options.host)
        )
    except BanyanError as error:
        raise StartError(error.message, code=error.code, param="database") from error
    config.refuse_public_address(options.host, tenancy.directory.live_keys())
    return tenancy


def take_port(host: str, port: int) -> socket.socket:
    """A socket that listens; raises ``StartError`` that says what to do when the port is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        bound_send_buffers(listener)
        listener.listen(1024)
        listener.set_inheritable(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} on {host} is taken; choose another with --port, or --port 0 for any free one"
        elif error.errno == errno.EACCES:
            message = f"port {port} on {host} needs privileges; choose one above 1023 with --port"
        else:
            message = f"cannot listen on {host} port {port}: {error.strerror}"
        raise StartError(message, code="port_unavailable", param="port") from error
    return listener


async def serve(
    options: config.ServeOptions,
    found: checkpoint.Checkpoint,
    listener: socket.socket,
    console: Console,
    tenancy: Tenancy,
) -> int:
    """Start the engine, serve on ``listener`` until a signal comes, close the engine. Returns the exit code."""
    interrupted = asyncio.Event()
    with _signals_set(interrupted):
        wanted = engine_options(options, found.folder)
        first = await _start_or_interrupt(wanted, interrupted, console)
        if first is None:
            return 0
        tell = partial(_say, console)
        engine = SupervisedEngine(first, partial(start_engine, wanted), lambda text: tell(f"banyan: {text}"))
        try:
            return await _serve_engine(engine, options, found, listener, interrupted, console, tenancy)
        finally:
            await tenancy.close()
            await engine.close()


def engine_options(options: config.ServeOptions, model: Path) -> EngineOptions:
    """The engine's part of the settings."""
    return EngineOptions(
        model=str(model),
        dtype=options.dtype,
        weights=options.weights,
        kv_memory=options.kv_memory,
        page_size=options.page_size,
        max_running=options.max_running,
        max_waiting=options.max_waiting,
        max_step_tokens=options.max_step_tokens,
        threads=options.threads,
        inter_token_ms=float(options.inter_token_ms),
        overlap=options.overlap,
        arm=options.arm,
    )


def server_limits(options: config.ServeOptions) -> Limits:
    """The server's bounds. Its own on open requests stays out of the way of the engine's queue: the engine can tell
    those whom it refuses when to come again."""
    usual = Limits()
    held = options.max_running + options.max_waiting
    return msgspec.structs.replace(usual, open_requests=max(usual.open_requests, 2 * held))


async def _start_or_interrupt(
    options: EngineOptions, interrupted: asyncio.Event, console: Console
) -> ProcessClient | None:
    """The engine, or None when a signal came while it was loading."""
    with LoadingBar(console) as bar:
        starting = asyncio.create_task(start_engine(options, bar.show))
        signalled = asyncio.create_task(interrupted.wait())
        try:
            await asyncio.wait((starting, signalled), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                return starting.result()
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, StartError):
                await starting
            return None
        finally:
            signalled.cancel()


async def _serve_engine(
    engine: SupervisedEngine,
    options: config.ServeOptions,
    found: checkpoint.Checkpoint,
    listener: socket.socket,
    interrupted: asyncio.Event,
    console: Console,
    tenancy: Tenancy,
) -> int:
    host, port = listener.getsockname()[:2]
    tracing = _tracing(console)
    service = ChatService(
        engine, found.folder, found.name, None, server_limits(options), tenancy=tenancy, tracing=tracing
    )
    settings = EngineSettings(service)
    await tenancy.start()
    if options.arm == config.ARMS[0]:
        tenancy.changed.append(settings.changed)
        engine.restarted.append(settings.engine_restarted)
    # before anybody can ask for one of the prompts
    publishing = asyncio.create_task(_publish(service, settings, options.arm))
    callers = Callers(frozenset(options.allowed_hosts), frozenset(options.allowed_origins))
    app = create_app(service, callers=callers)
    server = _Server(uvicorn_config(app, host, port, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        _say(console, ready_line(host, port, found.name, engine.info))
        publishing.add_done_callback(partial(_warn, console))
    showing = asyncio.create_task(_show_warming(service, settings, publishing, console))
    await _until(interrupted, engine.given_up, serving)
    publishing.cancel()
    showing.cancel()
    if not server.started:
        await serving
        raise StartError("the web server could not start; what it wrote is above", code="server_failed")
    interrupted.clear()
    drained = await drain(app, 0.0 if engine.given_up.is_set() else options.drain_seconds, interrupted)
    interrupted.clear()
    server.should_exit = True
    server.force_exit = not drained
    await _await_end(serving, server, interrupted)
    await asyncio.to_thread(tracing.close)
    if engine.given_up.is_set():
        raise StartError("the engine ended and could not be started again; what it wrote is above", code="engine_error")
    return 0 if drained else 1


async def _until(interrupted: asyncio.Event, given_up: asyncio.Event, serving: asyncio.Task[None]) -> None:
    """Until there is a reason to end: a signal, no engine, or no server."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (interrupted, given_up)]
    await asyncio.wait((*waiting, serving), return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()


async def _publish(service: ChatService, settings: EngineSettings, arm: str) -> list[str]:
    """Have the registered prompts shared and kept; warnings. Only our own arm shares anything."""
    if arm != config.ARMS[0]:
        return []
    await settings.sync()
    return await publish_prompts(service) if service.tenancy.directory.is_open else []


async def _show_warming(
    service: ChatService, settings: EngineSettings, publishing: asyncio.Task[list[str]], console: Console
) -> None:
    """Show how far the registered prompts are, once the engine knows those that it keeps."""
    with LoadingBar(console) as bar:
        while not (publishing.done() or settings.warmed[1]):
            await asyncio.sleep(0.1)
        async for done, total in warming(service, settings):
            bar.count("system prompts in the cache", done, total)


def _tracing(console: Console) -> Tracing:
    """As OpenTelemetry's variables ask for; chat does not depend on it, so what is wrong is said and no more."""
    try:
        return open_tracing(os.environ)
    except StartError as error:
        _say(console, f"banyan: {error.message}")
        return NoTracing()


def _warn(console: Console, publishing: asyncio.Task[list[str]]) -> None:
    for warning in [] if publishing.cancelled() else publishing.result():
        _say(console, f"banyan: {warning}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


async def _await_end(serving: asyncio.Task[None], server: uvicorn.Server, interrupted: asyncio.Event) -> None:
    """Let open requests end as the server's configuration says; a second signal ends them at once."""
    again = asyncio.create_task(interrupted.wait())
    await asyncio.wait((serving, again), return_when=asyncio.FIRST_COMPLETED)
    server.force_exit = server.force_exit or not serving.done()
    again.cancel()
    await serving


def ready_line(host: str, port: int, model: str, info: EngineInfo) -> str:
    """What the operator reads once everything runs."""
    shown = f"[{host}]" if ":" in host else host
    mib = 2**20
    parameters = f"{info.parameters / 1e6:,.1f} M parameters"
    return (
        f"Banyan is ready on http://{shown}:{port}  (Ctrl-C ends it)\n"
        f"  model {model}: {info.architecture}, {parameters}, {info.dtype} on {info.device}, "
        f"{info.weights_bytes / mib:,.0f} MiB, context {info.max_context:,} tokens\n"
        f"  cache: {info.pages:,} pages of {info.page_size} tokens = {info.pages * info.page_size:,} tokens, "
        f"{info.kv_bytes / mib:,.0f} MiB; up to {info.max_running} requests at once"
    )


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # not there on Windows

    return uvloop.new_event_loop()


class _Server(uvicorn.Server):
    """uvicorn's server without its own signal handling: ``serve`` decides what ends when, and with which exit code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
