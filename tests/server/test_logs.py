"""The log: a line an event, for people or machines; a line for each request without a word of what was said."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from backend.server import logs
from backend.server.tracing import Both, NoTracing
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import House, make_house, running

SECRET = "croissant"


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    names = ("banyan", "uvicorn", "uvicorn.error", "uvicorn.access")
    kept = [(logger, dict(logger.__dict__)) for logger in map(logging.getLogger, names)]
    yield
    for logger, state in kept:
        logger.__dict__.update(state)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]


@pytest.fixture
async def logged(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> AsyncIterator[House]:
    house = make_house(folder, tokenizer)
    house.service.tracing = Both(NoTracing(), logs.RequestLog(house.service.clock))
    async with running(house, tmp_path):
        logs.configure("info", "json")
        yield house


def chat(**fields: object) -> dict[str, object]:
    return {"model": "small", "messages": [{"role": "user", "content": SECRET}], **fields}


async def test_a_request_and_a_refusal_are_a_line_each(logged: House, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")  # to the stream that capsys reads
    async with httpx.AsyncClient(base_url=logged.http) as client:
        answer = await client.post("/v1/chat/completions", json=chat(max_tokens=4, stop=["zebra"]))
        assert (await client.post("/v1/chat/completions", json=chat(n=0))).status_code == 400
    async with connect(logged.socket) as socket:
        await socket.send(json.dumps({"type": "response.create", "input": 5}))
        await socket.recv()
    await logged.until_idle()
    said = capsys.readouterr().out
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["message"] for line in lines] == ["request", "refused", "refused"]
    for line in lines:
        assert line.pop("time").endswith("Z") and line.pop("total_ms") >= 0
        assert (line.pop("level"), line.pop("logger"), line["operation"]) == ("info", "banyan.requests", "chat")
    first, second, third = lines
    assert first.pop("ttft_ms") >= 0 and first.pop("queue_ms") >= 0 and first.pop("request") > 0
    assert first == {
        "message": "request",
        "tenant": "local",
        "operation": "chat",
        "reason": "length",
        "prompt_tokens": answer.json()["usage"]["prompt_tokens"],
        "cached_tokens": 0,
        "output_tokens": 4,
    }
    assert (second["status"], second["code"]) == (third["status"], third["code"]) == (400, "invalid_request")
    for word in (SECRET, "euros", "zebra", "127.0.0.1"):
        assert word not in said


def test_json_goes_to_stdout_and_text_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("banyan.server")
    logs.configure("warning", "json")
    log.info("not this")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("a request %s", "broke")
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert (line["level"], line["logger"], line["message"], err) == ("error", "banyan.server", "a request broke", "")
    assert line["exception"].startswith("Traceback") and line["exception"].endswith("ValueError: broken")
    logs.configure("info", "text")
    log.info("one\nline", extra={"fields": {"tenant": "a", "code": "x\ny"}})
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("uvicorn.access").info("127.0.0.1 GET /")
    out, err = capsys.readouterr()
    assert out == "" and err.partition(" ")[2] == "info banyan.server: one\\nline tenant=a code=x\\ny\n"
