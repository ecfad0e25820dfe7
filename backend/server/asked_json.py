"""The JSON body and the query of administrative requests, decoded and bounded. Knows no route."""

from typing import TypeVar

import msgspec
from starlette.requests import Request

from backend.errors import RequestError
from backend.server.errors import decoding
from backend.server.json_http import read_body
from backend.server.service import ChatService
from backend.tenants.names import can_be_asked

T = TypeVar("T")


async def body_as(request: Request, kind: type[T]) -> T:
    """The body. Raises ``RequestError`` with the path of what is wrong."""
    service: ChatService = request.app.state.service
    body = await read_body(request, service.limits.message_bytes)
    decoder = msgspec.json.Decoder(kind)
    return decoding(lambda: decoder.decode(body or b"{}"))


def tenant_asked(request: Request) -> str | None:
    """``tenant`` of the query. Raises ``RequestError`` for what is no name."""
    name = request.query_params.get("tenant")
    if name is not None and not can_be_asked(name):
        raise RequestError(f"{name[:100]!r} is not a tenant's name", param="tenant")
    return name


def number(request: Request, name: str, default: int, least: int = 0, most: int = 2**53) -> int:
    """A whole number of the query. Raises ``RequestError``."""
    written = request.query_params.get(name)
    if written is None:
        return default
    try:
        value = int(written) if len(written) <= 20 else most + 1
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise RequestError(f"{name} is a whole number from {least} to {most}", param=name)
    return value
