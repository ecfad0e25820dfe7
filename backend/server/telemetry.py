"""Requests as OpenTelemetry spans, by its conventions for generative AI. Imported only when traces are wanted.

One span for each request to the engine (``n`` answers are ``n``), kind SERVER, with the children ``queue``, ``prefill``
and ``decode``, and one without children for each that is refused before. They are made when the request has ended, from
times that were taken anyway: a token costs nothing. A W3C ``traceparent`` of the HTTP request, or of the WebSocket's
handshake, is their parent. No text, no key, no address.
"""

import time
from collections.abc import Callable, Mapping

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.engine.messages import Submit
from backend.errors import BanyanError, StartError
from backend.server.tracing import Measured
from backend.version import installed_version

_HEADERS = (b"traceparent", b"tracestate")
_propagator = TraceContextTextMapPropagator()


class OpenTelemetry:
    """``Tracing`` by an SDK's provider. ``clock``: the service's, in seconds; ``wall_ns``: Unix time."""

    def __init__(
        self,
        provider: TracerProvider,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("banyan", installed_version())
        self._clock = clock
        self._wall_ns = wall_ns

    def wrapped(self, app: ASGIApp) -> ASGIApp:
        """``app``, run in the context that a connection's headers name."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            carrier = {name.decode(): value.decode("latin-1") for name, value in _trace_headers(scope)}
            if not carrier:
                await app(scope, receive, send)
                return
            token = attach(_propagator.extract(carrier, Context()))
            try:
                await app(scope, receive, send)
            finally:
                detach(token)

        return traced

    def begin(self, submit: Submit, model: str, operation: str) -> "_Request":
        """Nothing but where it belongs is noted."""
        return _Request(self, get_current(), submit, model, operation)

    def refused(self, error: BanyanError, began: float, tenant: str, operation: str) -> None:
        """Make the span of a request that does not reach the engine."""
        told: dict[str, str | int] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "banyan",
            "error.type": error.code,
            "http.response.status_code": error.status,
        }
        if tenant:
            told["banyan.tenant"] = tenant
        offset = self._offset_ns()
        span = self._tracer.start_span(
            operation, None, trace.SpanKind.SERVER, told, start_time=offset + int(1e9 * began)
        )
        if error.status >= 500:  # by OpenTelemetry's conventions what a client did wrong is no error of a server's span
            span.set_status(trace.StatusCode.ERROR)
        span.end(offset + int(1e9 * self._clock()))

    def _offset_ns(self) -> int:
        """From the clock to Unix time."""
        return self._wall_ns() - int(1e9 * self._clock())

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()

    def record(self, request: "_Request", measured: Measured) -> None:
        """Make the spans of a request that has ended."""
        offset = self._offset_ns()

        def at(seconds: float) -> int:
            return offset + int(1e9 * seconds)

        span = self._tracer.start_span(
            f"{request.operation} {request.model}",
            request.context,
            trace.SpanKind.SERVER,
            _attributes(request, measured),
            start_time=at(measured.began),
        )
        if measured.reason == "error":
            span.set_status(trace.StatusCode.ERROR)
        inside = trace.set_span_in_context(span, Context())
        ends = (measured.handed, measured.running, measured.first, measured.ended)
        for name, start, end in zip(("queue", "prefill", "decode"), ends, ends[1:], strict=False):
            if start is not None:
                child = self._tracer.start_span(name, inside, start_time=at(start))
                child.end(at(measured.ended if end is None else end))
        span.end(at(measured.ended))


class _Request:
    __slots__ = ("_by", "context", "model", "operation", "submit")

    def __init__(self, by: OpenTelemetry, context: Context, submit: Submit, model: str, operation: str) -> None:
        self._by = by
        self.context = context
        self.submit = submit
        self.model = model
        self.operation = operation

    def ended(self, measured: Measured) -> None:
        self._by.record(self, measured)


def _attributes(request: _Request, measured: Measured) -> dict[str, str | int | float | list[str]]:
    submit, sampling = request.submit, request.submit.sampling
    found: dict[str, str | int | float | list[str]] = {
        "gen_ai.operation.name": request.operation,
        "gen_ai.provider.name": "banyan",
        "gen_ai.request.model": request.model,
        "gen_ai.request.max_tokens": submit.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.response.model": request.model,
        "gen_ai.response.finish_reasons": [measured.reason],
        "gen_ai.usage.input_tokens": len(submit.prompt) // 4,
        "gen_ai.usage.cache_read.input_tokens": measured.cached_tokens,
        "gen_ai.usage.output_tokens": measured.output_tokens,
        "banyan.tenant": submit.tenant,
    }
    if measured.first is not None:
        found["gen_ai.response.time_to_first_chunk"] = measured.first - measured.began
    if measured.reason == "error":
        found["error.type"] = "engine_error"
    return found


def _trace_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    if scope["type"] not in ("http", "websocket"):
        return []
    return [(name, value) for name, value in scope["headers"] if name in _HEADERS]


def provider_of(environment: Mapping[str, str]) -> TracerProvider:
    """The SDK's provider with the exporter that ``OTEL_TRACES_EXPORTER`` names (``otlp``, over HTTP, or ``console``);
    the SDK and the exporter read the other variables themselves. Raises ``StartError`` for another one."""
    resource = Resource.create({} if environment.get("OTEL_SERVICE_NAME") else {"service.name": "banyan"})
    provider = TracerProvider(resource=resource)
    match environment.get("OTEL_TRACES_EXPORTER") or "otlp":
        case "console":
            provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        case "otlp":
            protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get(
                "OTEL_EXPORTER_OTLP_PROTOCOL"
            )
            if protocol not in (None, "", "http/protobuf"):
                message = f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not spoken, only http/protobuf"
                raise StartError(message, code="invalid_option", param="OTEL_EXPORTER_OTLP_PROTOCOL")
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        case other:
            message = f"OTEL_TRACES_EXPORTER: otlp, console or none is expected, not {other!r}"
            raise StartError(message, code="invalid_option", param="OTEL_TRACES_EXPORTER")
    return provider
