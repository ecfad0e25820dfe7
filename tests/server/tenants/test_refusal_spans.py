"""What limits, locks and bad requests keep from the engine is a span too: with its code, under the caller's trace."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from backend.server.app import create_app
from backend.server.telemetry import OpenTelemetry
from tests.server.conftest import serve
from tests.server.tenants.conftest import CHAT, Walled, ask, events_until
from tests.server.test_tracing import CALLER, PARENT, TRACE


@pytest.fixture
async def exporter(walled: Walled, tmp_path: Path) -> AsyncIterator[InMemorySpanExporter]:
    """The spans of ``walled``, which is served anew with traces."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    walled.service.tracing = OpenTelemetry(provider)
    async with serve(walled, create_app(walled.service, tmp_path / "ui")):
        yield kept


def only(exporter: InMemorySpanExporter, **expected: object) -> ReadableSpan:
    """The one span since the last call, which has these attributes."""
    (span,) = exporter.get_finished_spans()
    exporter.clear()
    assert span.attributes is not None
    told = {name.rpartition(".")[2]: value for name, value in span.attributes.items()}
    told.pop("name"), told.pop("type")
    assert told == {"status_code": expected.pop("status"), **expected}
    return span


async def test_each_refusal_over_http_is_one(walled: Walled, exporter: InMemorySpanExporter) -> None:
    tenants = walled.tenancy.tenants
    walled.add_key("reader", "a", "usage:read")
    walled.tenancy.directory.refresh()
    async with httpx.AsyncClient(base_url=walled.http, headers=PARENT) as client:
        assert (await client.post(CHAT, json=ask())).status_code == 401
        span = only(exporter, status=401)
        assert span.name == "chat" and span.status.status_code == StatusCode.UNSET
        assert span.context is not None and f"{span.context.trace_id:032x}" == TRACE
        assert span.parent is not None and f"{span.parent.span_id:016x}" == CALLER
        assert span.attributes is not None and span.attributes["error.type"] == "invalid_api_key"
    assert (await walled.ask("reader")).status_code == 403
    only(exporter, status=403)  # whose route it is not: nobody was served
    assert (await walled.ask("a", n=0)).status_code == 400
    only(exporter, status=400, tenant="a")
    async with walled.client("a") as client:
        assert (await client.post("/v1/completions", json={"model": "small", "prompt": 1.5})).status_code == 400
        assert only(exporter, status=400, tenant="a").name == "text_completion"
        assert (await client.post(CHAT, content=b"x" * (walled.service.limits.message_bytes + 1))).status_code == 413
        only(exporter, status=413, tenant="a")
    tenants.change("a", {"limits": {"requests_per_minute": 1}}, actor="test")
    await walled.tenancy.look()
    await walled.ask("a")
    exporter.clear()
    assert (await walled.ask("a")).status_code == 429
    span = only(exporter, status=429, tenant="a")
    assert span.attributes is not None and span.attributes["error.type"] == "rate_limit_exceeded"
    async with walled.client("a") as client:
        assert (await client.post("/v1/responses", json={"input": "Hi"})).status_code == 429
        only(exporter, status=429, tenant="a")
        assert (await client.get("/v1/models/none")).status_code == 404  # asks nothing of the engine
    assert exporter.get_finished_spans() == ()


async def test_what_the_engine_s_door_refuses_is_one(walled: Walled, exporter: InMemorySpanExporter) -> None:
    walled.service.draining = True
    refused = await walled.ask("a")
    assert refused.status_code == 503
    assert only(exporter, status=503, tenant="a").status.status_code == StatusCode.ERROR
    async with walled.connected("a") as socket:
        await socket.send(json.dumps({"type": "response.create", "input": "Hi"}))
        await events_until(socket, "response.failed")
        only(exporter, status=503, tenant="a")


async def test_each_refusal_on_a_socket_is_one(walled: Walled, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(InvalidStatus):
        await connect(walled.socket)
    only(exporter, status=401)
    walled.tenancy.tenants.change("a", {"limits": {"requests_per_minute": 1}}, actor="test")
    await walled.tenancy.look()
    async with walled.connected("a") as socket:
        await socket.send(json.dumps({"type": "response.create", "input": "Hi"}))
        await events_until(socket, "response.completed")
        exporter.clear()
        for event, status in (
            ({"type": "response.create", "input": "Hi"}, 429),
            ({"type": "response.create", "input": 5}, 400),
        ):
            await socket.send(json.dumps(event))
            (error,) = await events_until(socket, "error")
            assert error["status"] == status
            only(exporter, status=status, tenant="a")
        await socket.send(json.dumps({"type": "response.cancel", "response_id": "none"}))
        await events_until(socket, "error")
    assert exporter.get_finished_spans() == ()


async def test_a_refusal_holds_no_text(walled: Walled, exporter: InMemorySpanExporter) -> None:
    await walled.ask("a", model="giraffe", messages=[{"role": "zebra", "content": "lion"}], n="tiger")
    (span,) = exporter.get_finished_spans()
    for word in ("giraffe", "zebra", "lion", "tiger", walled.keys["a"].secret):
        assert word not in span.to_json()
