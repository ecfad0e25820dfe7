"""Requests as OpenTelemetry spans: by the conventions' names, under the caller's trace, without any text."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from websockets.asyncio.client import connect

from backend.errors import StartError
from backend.server.telemetry import OpenTelemetry
from backend.server.tracing import NoTracing, is_wanted, open_tracing
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import House, make_house, running

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
SECRET = "croissant"


class Traced(House):
    """A server whose spans are kept."""

    exporter: InMemorySpanExporter

    async def spans(self) -> dict[str, ReadableSpan]:
        """Those of the only request, by name."""
        await self.until_idle()
        found = self.exporter.get_finished_spans()
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}


@pytest.fixture
async def traced(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> AsyncIterator[Traced]:
    house = make_house(folder, tokenizer)
    house.__class__ = Traced
    assert isinstance(house, Traced)
    house.exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(house.exporter))
    house.service.tracing = OpenTelemetry(provider)
    async with running(house, tmp_path):
        yield house


def chat(**fields: object) -> dict[str, object]:
    return {"model": "small", "messages": [{"role": "user", "content": SECRET}], "temperature": 0.5, **fields}


def id_of(number: int) -> str:
    return f"{number:016x}"


async def test_a_request_is_a_span_with_its_phases(traced: Traced) -> None:
    async with httpx.AsyncClient(base_url=traced.http, headers=PARENT) as client:
        answer = await client.post("/v1/chat/completions", json=chat(max_tokens=4))
    usage = answer.json()["usage"]
    spans = await traced.spans()
    assert set(spans) == {"chat small", "queue", "prefill", "decode"}
    root = spans["chat small"]
    assert root.kind == SpanKind.SERVER and root.status.status_code == StatusCode.UNSET
    assert root.context is not None and root.parent is not None and root.attributes is not None
    assert f"{root.context.trace_id:032x}" == TRACE and id_of(root.parent.span_id) == CALLER
    told = dict(root.attributes)
    assert 0 <= told.pop("gen_ai.response.time_to_first_chunk") < 30  # type: ignore[operator]
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "banyan",
        "gen_ai.request.model": "small",
        "gen_ai.request.max_tokens": 4,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.top_k": 0,
        "gen_ai.request.frequency_penalty": 0.0,
        "gen_ai.request.presence_penalty": 0.0,
        "gen_ai.response.model": "small",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": 4,
        "banyan.tenant": "local",
    }
    order = [root.start_time]
    for name in ("queue", "prefill", "decode"):
        child = spans[name]
        assert child.parent is not None and child.parent.span_id == root.context.span_id
        assert child.context is not None and child.context.trace_id == root.context.trace_id
        order += [child.start_time, child.end_time]
    order.append(root.end_time)
    assert order == sorted(order)


async def test_the_handshake_names_the_trace_of_a_socket(traced: Traced) -> None:
    async with connect(traced.socket, additional_headers=PARENT) as websocket:
        for _ in range(2):
            await websocket.send(json.dumps({"type": "response.create", "input": SECRET * 20}))
            while json.loads(await websocket.recv())["type"] != "response.completed":
                pass
    async with connect(traced.socket) as websocket:  # and no other socket's
        await websocket.send(json.dumps({"type": "response.create", "input": SECRET * 20}))
        while json.loads(await websocket.recv())["type"] != "response.completed":
            pass
    await traced.until_idle()
    roots = [span for span in traced.exporter.get_finished_spans() if span.name == "chat small"]
    assert [span.parent is not None and id_of(span.parent.span_id) for span in roots] == [CALLER, CALLER, False]
    assert roots[1].attributes is not None and roots[1].attributes["gen_ai.usage.cache_read.input_tokens"] >= 16


async def test_completions_have_their_own_name_and_each_answer_a_span(traced: Traced) -> None:
    async with httpx.AsyncClient(base_url=traced.http, headers=PARENT) as client:
        await client.post("/v1/completions", json={"model": "small", "prompt": SECRET, "n": 2})
    await traced.until_idle()
    roots = [span for span in traced.exporter.get_finished_spans() if span.name == "text_completion small"]
    assert len(roots) == 2


async def test_a_failure_is_one(traced: Traced) -> None:
    traced.never_ends()
    async with (
        httpx.AsyncClient(base_url=traced.http) as client,
        client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer,
    ):
        async for line in answer.aiter_lines():
            if "croissant" in line:
                traced.engine.die()
    root = (await traced.spans())["chat small"]
    assert root.status.status_code == StatusCode.ERROR
    assert root.attributes is not None and root.attributes["error.type"] == "engine_error"


async def test_who_leaves_early_has_a_span_too(traced: Traced) -> None:
    traced.engine.prefill_seconds = 60.0
    with pytest.raises(httpx.ReadTimeout):
        async with httpx.AsyncClient(base_url=traced.http, timeout=0.3) as client:
            await client.post("/v1/chat/completions", json=chat())
    spans = await traced.spans()
    assert set(spans) == {"chat small", "queue"} or set(spans) == {"chat small"}
    attributes = spans["chat small"].attributes
    assert attributes is not None and attributes["gen_ai.response.finish_reasons"] == ("abort",)


async def test_no_span_holds_text(traced: Traced) -> None:
    async with httpx.AsyncClient(base_url=traced.http, headers=PARENT | {"authorization": "Bearer sk-key"}) as client:
        await client.post("/v1/chat/completions", json=chat(stop=["zebra"], metadata={"giraffe": "lion"}))
    await traced.until_idle()
    told = " ".join(span.to_json() for span in traced.exporter.get_finished_spans()).lower()
    assert "chat small" in told
    for word in (SECRET, "euros", "zebra", "giraffe", "lion", "sk-key"):
        assert word not in told


async def test_a_bad_traceparent_is_no_parent(traced: Traced) -> None:
    async with httpx.AsyncClient(base_url=traced.http, headers={"traceparent": b"00-zz-1-\xff"}) as client:
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    assert (await traced.spans())["chat small"].parent is None


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_off_unless_the_standard_variables_ask(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) == wanted
    if not wanted:
        assert isinstance(open_tracing(environment), NoTracing)


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_what_cannot_be_is_named(environment: dict[str, str], names: str) -> None:
    with pytest.raises(StartError, match=names):
        open_tracing(environment)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "backend.server.telemetry", None)
    with pytest.raises(StartError, match=r"pip install 'banyan-chat\[otel\]'"):
        open_tracing({"OTEL_TRACES_EXPORTER": "otlp"})


def test_nothing_is_imported_when_it_is_off() -> None:
    program = (
        "import sys; import backend.cli.serve; from backend.server.tracing import open_tracing; open_tracing({});"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_collector_gets_them_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter itself, against a collector that does no more than listen."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *parts: object) -> None: ...

    from backend.engine.messages import Submit
    from backend.server.tracing import Measured
    from scheduler.plan import Sampling

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
        tracing = open_tracing({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint})
        submit = Submit(1, bytes(8), 1, Sampling())
        tracing.begin(submit, "small", "chat").ended(Measured(0.0, 0.1, 0.2, 0.3, 0.4, 0, 1, "stop"))
        tracing.close()
        collector.shutdown()
    (sent,) = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    (resource,) = sent.resource_spans
    assert {span.name for span in resource.scope_spans[0].spans} == {"chat small", "queue", "prefill", "decode"}
    assert any(a.key == "service.name" and a.value.string_value == "banyan" for a in resource.resource.attributes)
