"""What is told about each request when it has ended, and who is told: nobody, unless OpenTelemetry was configured.

Knows the environment's variables by name. Imports nothing of OpenTelemetry before they ask for it.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from starlette.types import ASGIApp

from backend.engine.messages import Submit
from backend.errors import BanyanError, StartError

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
