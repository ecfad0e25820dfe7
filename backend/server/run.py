"""uvicorn's settings for this server. Knows measured choices, nothing of the app."""

import gc
import logging
import sys

import uvicorn
from starlette.types import ASGIApp

from backend.server.http_in_time import HttpInTime
from backend.server.websocket_frames import WebSocketProtocol

_MESSAGE_BYTES = 1 << 20
# uvicorn writes these as errors, one with a traceback, when a socket is refused or a client's text is none: they could
# fill the log. Refusals are counted in the metrics.
_CLIENTS_FAULTS = (
    "ASGI callable returned without completing handshake.",
    "Invalid UTF-8 sequence received from client.",
)


def spare_collections() -> None:
    """Call once all that the server is made of is there: it is never garbage, and looking through it for some would
    hold up every stream for tens of milliseconds."""
    gc.freeze()


def uvicorn_config(app: ASGIApp, host: str, port: int, *, log_level: str = "info") -> uvicorn.Config:
    """uvicorn's sans-I/O WebSockets with uvloop send twice the frames a second of the other pairs. No deflate: it would
    halve that again, cost 38 KiB a connection, and let the length of a frame tell what is in it."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=HttpInTime,
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        ws=WebSocketProtocol,
        ws_max_size=_MESSAGE_BYTES,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        ws_per_message_deflate=False,
        lifespan="on",
        log_level=log_level,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_ours)  # once, however often
    return config


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a line of the log is about this server, and no client's fault."""
    return record.msg not in _CLIENTS_FAULTS
