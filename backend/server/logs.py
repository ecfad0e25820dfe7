"""The server's log: one line an event, for people or for machines, and one for each request where that is asked for.

Knows ``logging`` and what is told of requests. No text of prompts or answers, no key and no address comes here.
"""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.types import ASGIApp

from backend.engine.messages import Submit
from backend.errors import BanyanError
from backend.server.tracing import Measured

_LOGGERS = ("banyan", "uvicorn")
_requests = logging.getLogger("banyan.requests")
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Lines(logging.Formatter):
    """``TIME LEVEL LOGGER: MESSAGE NAME=VALUE ...``, or the same as a JSON object. What a message's ``extra`` holds as
    ``fields`` are further values."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        """One line; only in text an exception has more."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields: dict[str, Any] = getattr(record, "fields", {})
        level, message = record.levelname.lower(), record.getMessage()
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._json:
            more = {"exception": trace} if trace else {}
            line = {"time": at, "level": level, "logger": record.name, "message": message, **fields, **more}
            return _encode(line).decode()
        told = "".join(f" {name}={value}" for name, value in fields.items())
        # what clients name (a path, a model) makes no line of its own
        said = f"{message}{told}".translate({10: "\\n", 13: "\\r"})
        return f"{at} {level} {record.name}: {said}" + (f"\n{trace}" if trace else "")


def configure(level: str, form: str) -> None:
    """Write ours and uvicorn's log as ``form``, from ``level`` on: text to stderr, JSON to stdout, where nothing else
    goes. Call it after uvicorn was configured, which sets its own."""
    handler = logging.StreamHandler(sys.stdout if form == "json" else sys.stderr)
    handler.setFormatter(Lines(form))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    # its start and end, of which we speak ourselves, and each request's address, of which nobody does
    logging.getLogger("uvicorn.error").setLevel("ERROR" if level == "error" else "WARNING")
    logging.getLogger("uvicorn.access").disabled = True


class RequestLog:
    """``Tracing`` that writes a line (info) when a request has ended or was refused. ``clock``: the service's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def wrapped(self, app: ASGIApp) -> ASGIApp:
        """``app`` itself."""
        return app

    def begin(self, submit: Submit, model: str, operation: str) -> "_Request":
        """See ``Tracing``."""
        return _Request(submit.tenant, operation, submit.request, len(submit.prompt) // 4)

    def refused(self, error: BanyanError, began: float, tenant: str, operation: str) -> None:
        """See ``Tracing``."""
        fields = {
            "tenant": tenant or None,
            "operation": operation,
            "status": error.status,
            "code": error.code,
            "total_ms": _ms(self._clock() - began),
        }
        _requests.info("refused", extra={"fields": fields})

    def close(self) -> None:
        """Nothing waits."""


class _Request(msgspec.Struct, frozen=True):
    tenant: str
    operation: str
    request: int
    prompt_tokens: int

    def ended(self, measured: Measured) -> None:
        fields = {
            "tenant": self.tenant,
            "operation": self.operation,
            "request": self.request,
            "reason": measured.reason,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": measured.cached_tokens,
            "output_tokens": measured.output_tokens,
            "queue_ms": None if measured.running is None else _ms(measured.running - measured.handed),
            "ttft_ms": None if measured.first is None else _ms(measured.first - measured.began),
            "total_ms": _ms(measured.ended - measured.began),
        }
        _requests.info("request", extra={"fields": fields})


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
