"""The server around an engine: tenants, service, app and web server, and how they end.

The heavy half of ``banyan serve``: it imports all that a server needs, and is imported while an engine loads.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import uvicorn
from rich.console import Console

from backend import config
from backend.cli import checkpoint
from backend.cli.loading import LoadingBar
from backend.cli.serve import engine_options
from backend.engine.messages import EngineInfo
from backend.engine.process_client import ProcessClient, start_engine
from backend.engine.supervised import SupervisedEngine
from backend.errors import BanyanError, StartError
from backend.server import logs
from backend.server.app import create_app
from backend.server.callers import Callers
from backend.server.draining import drain
from backend.server.engine_settings import EngineSettings
from backend.server.limits import Limits
from backend.server.prompts import PromptRegistry
from backend.server.publishing import publish_prompts
from backend.server.run import spare_collections, uvicorn_config
from backend.server.service import ChatService
from backend.server.tenancy import Tenancy
from backend.server.tracing import Both, NoTracing, Tracing, open_tracing
from backend.server.warming import warming
from backend.tenants.database import database_url, open_database


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


def server_limits(options: config.ServeOptions) -> Limits:
    """The server's bounds. Its own on open requests stays out of the way of the engine's queue: the engine can tell
    those whom it refuses when to come again."""
    usual = Limits()
    held = options.max_running + options.max_waiting
    return msgspec.structs.replace(usual, open_requests=max(usual.open_requests, 2 * held))


async def serve(
    client: ProcessClient,
    tenancy: Tenancy,
    options: config.ServeOptions,
    found: checkpoint.Checkpoint,
    listener: socket.socket,
    interrupted: asyncio.Event,
    console: Console,
) -> int:
    """Serve with the engine until ``interrupted``, then end both. Returns the exit code."""
    wanted = engine_options(options, found.folder)
    engine = SupervisedEngine(client, partial(start_engine, wanted), lambda text: _say(console, f"banyan: {text}"))
    try:
        return await _serve_engine(engine, options, found, listener, interrupted, console, tenancy)
    finally:
        await tenancy.close()
        await engine.close()


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
    tracing: Tracing = _tracing(console)
    if options.log_level in ("info", "debug"):
        tracing = Both(tracing, logs.RequestLog(time.monotonic))
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
    logs.configure(options.log_level, options.log_format)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        spare_collections()
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


class _Server(uvicorn.Server):
    """uvicorn's server without its own signal handling: ``serve`` decides what ends when, and with which exit code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
