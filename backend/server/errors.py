"""Errors in OpenAI's form: one body for HTTP and WebSocket. Knows no transport."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from backend.errors import BanyanError, RequestError
from backend.server.events import ErrorBody

T = TypeVar("T")


class ErrorResponse(msgspec.Struct):
    """The JSON body of an HTTP error."""

    error: ErrorBody


def body_of(error: BanyanError) -> ErrorBody:
    """``type`` follows from the status, as with OpenAI."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status) or ("server_error" if error.status >= 500 else "invalid_request_error")
    return ErrorBody(kind, error.code, error.message, error.param)


def unexpected() -> BanyanError:
    """What a client sees of a bug: that it was ours."""
    return BanyanError("the server made a mistake; its log has the details", code="internal_error", status=500)


def decoding(decode: Callable[[], T]) -> T:
    """Run a msgspec decoder. Raises ``RequestError``: ``invalid_json``, or ``invalid_request`` with the path.

    msgspec also lets ``UnicodeDecodeError`` and ``RecursionError`` through, which are none of its own errors.
    """
    try:
        return decode()
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        param = path.removesuffix("`").removeprefix("$").removeprefix(".") or None
        raise RequestError(f"{param or 'the message'}: {message}", param=param) from None
    except UnicodeError:
        raise RequestError("the message is not UTF-8", code="invalid_json") from None
    except RecursionError:
        raise RequestError("the message is nested too deeply", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"the message is not JSON: {error}", code="invalid_json") from None
