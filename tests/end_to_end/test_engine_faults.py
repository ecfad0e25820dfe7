"""The engine is killed, or stopped, under open answers: each is told in time, and the next one works."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from backend.engine.options import EngineOptions
from backend.engine.process_client import start_engine
from backend.engine.supervised import SupervisedEngine
from tests.end_to_end.conftest import DEMO, serving

TO_FAILED_SECONDS = {signal.SIGKILL: 2.0, signal.SIGSTOP: 10.0}


@pytest_asyncio.fixture
async def supervised(tmp_path: Path) -> AsyncIterator[tuple[SupervisedEngine, str]]:
    wanted = EngineOptions(model=str(DEMO / "model"), kv_memory=64 << 20, threads=1)
    engine = SupervisedEngine(await start_engine(wanted), partial(start_engine, wanted))
    async with serving(engine) as (url, _):
        yield engine, url
    await engine.close()


async def begun(url: str) -> ClientConnection:
    """A socket on which an answer has begun that will not end by itself soon."""
    websocket = await connect(url.replace("http", "ws", 1) + "/v1/responses", compression=None)
    event = {"type": "response.create", "input": "Hello", "max_output_tokens": 3000, "ignore_eos": True}
    await websocket.send(json.dumps(event))
    while json.loads(await websocket.recv())["type"] != "response.output_text.delta":
        pass
    return websocket


async def failed(websocket: ClientConnection) -> float:
    """When ``response.failed`` came."""
    while (event := json.loads(await websocket.recv()))["type"] != "response.failed":
        assert event["type"] == "response.output_text.delta"
    assert event["response"]["error"]["code"] == "engine_error"
    return time.monotonic()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_every_open_answer_is_told_and_the_next_one_works(
    supervised: tuple[SupervisedEngine, str], number: signal.Signals
) -> None:
    engine, url = supervised
    sockets = [await begun(url) for _ in range(6)]
    os.kill(engine._client.process.pid, number)
    at = time.monotonic()
    told = await asyncio.gather(*map(failed, sockets))
    assert max(told) - at <= TO_FAILED_SECONDS[number]
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        if not engine.alive:
            assert (await client.get("/health")).status_code == 503
        async with asyncio.timeout(60):
            while (await client.get("/health")).status_code != 200:
                await asyncio.sleep(0.02)
        answer = await client.post("/v1/responses", json={"input": "Hello", "max_output_tokens": 5})
        assert answer.status_code == 200 and answer.json()["usage"]["output_tokens"] > 0
    for websocket in sockets:  # the sockets are as good as before
        await websocket.send(json.dumps({"type": "response.create", "input": "Hi", "max_output_tokens": 2}))
        while json.loads(await websocket.recv())["type"] not in ("response.completed", "response.incomplete"):
            pass
        await websocket.close()
    report = await engine.inspect(check=True)
    assert report.problem == "" and report.load.running == 0
