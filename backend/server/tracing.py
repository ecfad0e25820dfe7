"""What is told about each request when it has ended, and who is told: nobody, unless OpenTelemetry was configured or
requests are logged.

Knows the environment's variables by name. Imports nothing of OpenTelemetry before they ask for it.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import NamedTuple, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from backend.engine.messages import Submit
from backend.errors import BanyanError, StartError
from backend.server.identity import STATE_KEY, Identity
from backend.server.json_http import REFUSAL

SWITCHES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER")


class Measured(NamedTuple):
    """A request from its arrival to its end, in seconds of the service's clock. ``handed``: to the engine; ``running``,
    ``first``: when it began to run there and had its first token, None where it did not come so far."""

    began: float
    handed: float
    running: float | None
    first: float | None
    ended: float
    cached_tokens: int
    output_tokens: int
    reason: str


class Trace(Protocol):
    """One request."""

    def ended(self, measured: Measured) -> None:
        """It is over; called once."""
        ...


class Tracing(Protocol):
    """``begin`` is called in the context (``contextvars``) of the connection that asks."""

    def wrapped(self, app: ASGIApp) -> ASGIApp:
        """``app`` with whatever has to be read off each connection before."""
        ...

    def begin(self, submit: Submit, model: str, operation: str) -> Trace:
        """A request is handed to the engine. ``operation``: ``chat`` or ``text_completion``."""
        ...

    def refused(self, error: BanyanError, began: float, tenant: str, operation: str) -> None:
        """A request that came at ``began`` does not reach the engine."""
        ...

    def close(self) -> None:
        """Send what waits; may block for some seconds."""
        ...


class NoTracing:
    """Does nothing."""

    def wrapped(self, app: ASGIApp) -> ASGIApp:
        """``app`` itself."""
        return app

    def begin(self, submit: Submit, model: str, operation: str) -> Trace:
        """Nothing."""
        return self

    def ended(self, measured: Measured) -> None:
        """Nothing."""

    def refused(self, error: BanyanError, began: float, tenant: str, operation: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Both:
    """Tells two."""

    def __init__(self, first: Tracing, second: Tracing) -> None:
        self._first, self._second = first, second

    def wrapped(self, app: ASGIApp) -> ASGIApp:
        """See ``Tracing``."""
        return self._first.wrapped(self._second.wrapped(app))

    def begin(self, submit: Submit, model: str, operation: str) -> "_BothTraces":
        """See ``Tracing``."""
        return _BothTraces(self._first.begin(submit, model, operation), self._second.begin(submit, model, operation))

    def refused(self, error: BanyanError, began: float, tenant: str, operation: str) -> None:
        """See ``Tracing``."""
        self._first.refused(error, began, tenant, operation)
        self._second.refused(error, began, tenant, operation)

    def close(self) -> None:
        """See ``Tracing``."""
        self._first.close()
        self._second.close()


class _BothTraces(NamedTuple):
    first: Trace
    second: Trace

    def ended(self, measured: Measured) -> None:
        self.first.ended(measured)
        self.second.ended(measured)


class _Connection:
    """An HTTP request or a socket; whether anything of it was told."""

    told = False


_connection: ContextVar[_Connection | None] = ContextVar("connection", default=None)
_OPERATIONS = {"/v1/responses": "chat", "/v1/chat/completions": "chat", "/v1/completions": "text_completion"}


def mark_told() -> None:
    """Something of this connection is told by who calls."""
    if (connection := _connection.get()) is not None:
        connection.told = True


class Refusals:
    """Wraps the app: of requests for text that end with an error, and of which nothing was told, tells the error."""

    def __init__(self, app: ASGIApp, tracing: Tracing, clock: Callable[[], float]) -> None:
        self._app = app
        self._tracing = tracing
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve; then look how it ended."""
        asks = scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] == "POST")
        if not asks or scope["path"] not in _OPERATIONS:
            await self._app(scope, receive, send)
            return
        began, connection = self._clock(), _Connection()
        token = _connection.set(connection)
        try:
            await self._app(scope, receive, send)
        finally:
            _connection.reset(token)
            state = scope.get("state", {})
            error, identity = state.get(REFUSAL), state.get(STATE_KEY)
            if isinstance(error, BanyanError) and not connection.told:
                tenant = identity.tenant if isinstance(identity, Identity) else ""
                self._tracing.refused(error, began, tenant, _OPERATIONS[scope["path"]])


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environment.get(name) for name in SWITCHES)


def open_tracing(environment: Mapping[str, str]) -> Tracing:
    """As the variables ask for. Raises ``StartError``: the extra is not installed, or there is no such exporter."""
    if not is_wanted(environment):
        return NoTracing()
    try:
        from backend.server.telemetry import OpenTelemetry, provider_of
    except ModuleNotFoundError as error:
        raise StartError(
            "OpenTelemetry is not installed, so no traces are sent: pip install 'banyan-chat[otel]', or set "
            "OTEL_SDK_DISABLED=true",
            code="not_installed",
            param=next(name for name in SWITCHES if environment.get(name)),
        ) from error
    return OpenTelemetry(provider_of(environment))
