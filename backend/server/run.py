"""uvicorn's settings for this server. Knows measured choices, nothing of the app."""

import asyncio
import gc
import logging
import sys
import weakref

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backend.server.websocket_frames import WebSocketProtocol

HEAD_SECONDS = 10.0
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


class HeadInTime(HttpToolsProtocol):
    """uvicorn's HTTP, which by itself keeps a connection for ever that never says what it wants: here the head of the
    first request is there within ``head_seconds``, or the connection is closed."""

    head_seconds = HEAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        super().connection_made(transport)
        self.loop.call_later(self.head_seconds, _close_if_silent, weakref.ref(self))


def _close_if_silent(reference: "weakref.ref[HeadInTime]") -> None:
    protocol = reference()
    # after an upgrade another protocol has the transport
    if protocol is not None and protocol.cycle is None and protocol.transport.get_protocol() is protocol:
        protocol.transport.close()


def uvicorn_config(app: ASGIApp, host: str, port: int, *, log_level: str = "info") -> uvicorn.Config:
    """uvicorn's sans-I/O WebSockets with uvloop send twice the frames a second of the other pairs. No deflate: it would
    halve that again, cost 38 KiB a connection, and let the length of a frame tell what is in it."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=HeadInTime,
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
