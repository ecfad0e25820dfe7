"""``banyan serve``: settles the options, takes the port, finds the model and starts the engine's process.

Until then it imports next to nothing: the engine's process imports torch, which takes longest, and what the server
needs is imported beside it (``starting.py``). The port is taken before, so that one in use is noticed at once.
"""

import argparse
import contextlib
import errno
import socket
from pathlib import Path

from backend import config
from backend.cli import checkpoint
from backend.engine.options import EngineOptions
from backend.engine.spawn import spawn_engine
from backend.errors import StartError
from backend.server.listening import bound_send_buffers


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
    tenancy = None
    if checkpoint.is_download(options.model):  # whoever has waited for gigabytes does not want to hear of the database
        from rich.console import Console

        from backend.cli import serving

        console = Console(stderr=True)
        tenancy = serving.open_tenancy(options, console)
        if not console.is_terminal:  # there the hub's library shows bars
            console.print(f"banyan: {options.model}: taken from the hub, or from the copy that is here", markup=False)
    with contextlib.closing(take_port(options.host, options.port)) as listener:
        found = checkpoint.locate(options.model, options.data_dir)
        child = spawn_engine(engine_options(options, found.folder))
        try:
            from backend.cli import starting

            return starting.run(options, found, listener, child, tenancy)
        finally:
            child.end()  # however we leave


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
        isolation_ms=float(options.isolation_ms),
        overlap=options.overlap,
        arm=options.arm,
    )
