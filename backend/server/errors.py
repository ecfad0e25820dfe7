"""Errors in OpenAI's form: one body for HTTP and WebSocket; what the engine's refusals become. Knows no transport."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from backend.engine.messages import Output
from backend.errors import BanyanError, EngineError, RequestError
from backend.server.events import ErrorBody

T = TypeVar("T")

QUOTA = "insufficient_quota"
"""OpenAI's word, as code and as type, for a 429 that waiting does not help against."""

# What the engine calls a refusal: what the protocol calls it, and the HTTP status.
_REFUSALS = {
    "invalid_request": ("invalid_request", 400),
    "context_length_exceeded": ("context_length_exceeded", 400),
    "quota_exceeded": (QUOTA, 429),
    "server_overloaded": ("server_overloaded", 503),
}


class ErrorResponse(msgspec.Struct):
    """The JSON body of an HTTP error."""

    error: ErrorBody


def body_of(error: BanyanError) -> ErrorBody:
    """``type`` follows from the status, as with OpenAI."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status) or ("server_error" if error.status >= 500 else "invalid_request_error")
    return ErrorBody(QUOTA if error.code == QUOTA else kind, error.code, error.message, error.param)


def may_retry(error: BanyanError) -> bool:
    """Whether the same request may succeed later. OpenAI's clients take every 429 for one that may, unless they are
    told: the size that a quota refuses today it refuses always."""
    return error.status in (429, 503) and error.code != QUOTA


def failure(output: Output) -> BanyanError:
    """What the client is told of an ``Output`` with ``finish`` ``error``."""
    message = output.message or "the engine failed this request"
    if output.code not in _REFUSALS:
        return EngineError(message, code=output.code or "engine_error")
    code, status = _REFUSALS[output.code]
    return BanyanError(message, code=code, status=status, retry_after_s=output.retry_after_s)


def unexpected() -> BanyanError:
    """What a client sees of a bug: that it was ours."""
    return BanyanError("the server made a mistake; its log has the details", code="internal_error", status=500)


def decoding(decode: Callable[[], T], form: str = "JSON") -> T:
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
        raise RequestError(f"the message is not {form}: {error}", code="invalid_json") from None
