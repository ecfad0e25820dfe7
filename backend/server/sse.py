"""Answers over HTTP that end when the client goes away: whole ones, and server-sent events.

Knows ASGI. Knows nothing of what is answered: ``work`` and ``chunks`` are given, ``release`` frees what they hold.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def sse_data(payload: bytes) -> bytes:
    """One event. ``payload`` holds no newline (JSON does not)."""
    return b"data: " + payload + b"\n\n"


class WhileConnected:
    """An ASGI response that gives up, and calls ``release`` in the same tick, when the client disconnects."""

    def __init__(self, body: Callable[[Scope, Receive, Send], Awaitable[None]], release: Callable[[], None]) -> None:
        self._body = body
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body, watching the connection."""
        body = asyncio.ensure_future(self._body(scope, receive, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((body, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._release()
            for task in (body, gone):
                task.cancel()
            results = await asyncio.gather(body, gone, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]


def whole(work: Callable[[], Awaitable[Response]], release: Callable[[], None]) -> WhileConnected:
    """Answer with what ``work`` returns, unless the client is gone before."""

    async def body(scope: Scope, receive: Receive, send: Send) -> None:
        await (await work())(scope, receive, send)

    return WhileConnected(body, release)


def event_stream(chunks: AsyncIterator[bytes], release: Callable[[], None]) -> WhileConnected:
    """Answer with ``chunks`` as they come."""

    async def body(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return WhileConnected(body, release)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
