"""JSON over HTTP: bodies read within bounds, answers and errors written. Knows no route."""

import math
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from backend.errors import BanyanError, RequestError
from backend.server.errors import ErrorResponse, body_of, may_retry

REFUSAL = "refusal"
"""Name in a scope's state of the ``BanyanError`` that a request was refused with."""

_encode = msgspec.json.Encoder().encode


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """``value``: anything msgspec encodes."""
    return Response(_encode(value), status_code=status, headers=headers, media_type="application/json")


def error_response(error: BanyanError) -> Response:
    """OpenAI's error body. Says whether trying again can help, and when, as OpenAI's clients read it."""
    headers = {"x-should-retry": "false"}
    if may_retry(error):
        headers = {"retry-after": str(max(math.ceil(error.retry_after_s), 1))}
    return json_response(ErrorResponse(body_of(error)), error.status, headers)


def refusal(scope: Scope, error: BanyanError) -> Response:
    """``error_response``; the error stays in the scope's state, for traces."""
    scope.setdefault("state", {})[REFUSAL] = error
    return error_response(error)


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The body of a request for JSON. Raises ``RequestError``: too big, of another type, or broken off."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        # a page of another site can send anything but JSON without asking first
        raise RequestError("content-type must be application/json", code="unsupported_media_type", status=415)
    size = 0
    parts = []
    try:
        async for part in request.stream():
            size += len(part)
            if size > most_bytes:
                raise RequestError(f"the body is larger than {most_bytes} bytes", code="message_too_big", status=413)
            parts.append(part)
    except ClientDisconnect as error:  # nobody hears it, and the log says nothing of an ordinary event
        raise RequestError("the connection ended before the body did", code="client_gone") from error
    return b"".join(parts)
