"""uvicorn's HTTP with bounds on how long a request may take to come, and on its head.

By itself uvicorn keeps a connection for ever whose client says nothing, or one byte a minute. Knows no route.
"""

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backend.errors import RequestError
from backend.server.json_http import error_response


class HttpInTime(HttpToolsProtocol):
    """The head of a request is there ``head_seconds`` after the connection, or after its own first byte, and has about
    ``head_bytes`` at most; its body is there ``body_seconds`` later. Else the client is told so, if it can still be
    told, and the connection is closed: also where the answer, a refusal, was given before the body was read."""

    head_seconds = 10.0
    body_seconds = 60.0
    head_bytes = 1 << 16

    _deadline: asyncio.TimerHandle | None = None
    _in_head = False
    _in_body = False
    _head_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        super().connection_made(transport)
        self._await(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See uvicorn. What is neither head nor body (line breaks between requests) buys no time."""
        before = self._in_head
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._in_head:
            # of the data in which a head begins it is not known where: that is not counted
            self._head_size = self._head_size + len(data) if before else 0
            if self._head_size > self.head_bytes:
                self._end(f"the head is larger than {self.head_bytes} bytes", "head_too_big", 431)
        elif not self._in_body and (self.cycle is None or self.cycle.response_complete):
            self._await(self.head_seconds)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head = True
        self._await(self.head_seconds)

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._arrived()
        self._in_head, self._in_body = False, True
        super().on_headers_complete()
        self._await(self.body_seconds)

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._arrived()
        self._in_body = False
        super().on_message_complete()

    def _await(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(seconds, self._late)

    def _arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.pipeline:  # those before are to be answered first
            self._await(self.body_seconds)
        elif self._in_body and not self.cycle.response_started:
            self._end(f"the body did not come within {self.body_seconds:g} s", "request_timeout", 408)
        else:
            self.transport.close()

    def _end(self, message: str, code: str, status: int) -> None:
        response = error_response(RequestError(message, code=code, status=status))
        pairs = [*response.raw_headers, (b"connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
        self.transport.write(line + head + b"\r\n" + bytes(response.body))
        self.transport.close()
