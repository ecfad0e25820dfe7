"""The real product on loopback: bundled model, engine process, server; what a fresh ``banyan serve`` starts."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette

import backend
from backend.engine.client import EngineClient
from backend.engine.options import EngineOptions
from backend.engine.process_client import ProcessClient, start_engine
from backend.server.app import create_app
from backend.server.limits import Limits
from backend.server.prompts import PromptRegistry
from backend.server.run import uvicorn_config
from backend.server.service import ChatService

DEMO = Path(backend.__file__).parent / "demo"


@dataclass
class House:
    """A running server. ``url`` is ``http://127.0.0.1:PORT``."""

    url: str
    engine: ProcessClient
    app: Starlette

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/v1/responses"

    async def idle(self) -> None:
        """Wait until nothing runs; then every invariant holds, and no page is held by anybody."""
        for _ in range(200):
            report = await self.engine.inspect(check=True)
            assert report.problem == ""
            if report.load.running == report.load.waiting == 0:
                break
            await asyncio.sleep(0.05)
        load = report.load
        assert (load.running, load.waiting, load.pages_private) == (0, 0, 0)
        assert load.pages_free + load.pages_cached == self.engine.info.pages
        assert load.pages_evictable == load.pages_cached  # no lock is left


@pytest.fixture(scope="session")
def businesses() -> dict[str, dict]:
    """The demo's system prompts by id."""
    return {entry["id"]: entry for entry in json.loads((DEMO / "businesses.json").read_text())}


@contextlib.asynccontextmanager
async def serving(engine: EngineClient, limits: Limits | None = None) -> AsyncIterator[tuple[str, Starlette]]:
    """The server before ``engine``: its address and its app."""
    prompts = PromptRegistry.load(DEMO / "businesses.json")
    app = create_app(ChatService(engine, DEMO / "model", "banyan-demo", prompts, limits))
    server = uvicorn.Server(uvicorn_config(app, "127.0.0.1", 0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", app
    server.should_exit = True
    await serving


@contextlib.asynccontextmanager
async def open_house(limits: Limits | None = None) -> AsyncIterator[House]:
    """Engine and server."""
    engine = await start_engine(EngineOptions(model=str(DEMO / "model"), kv_memory=64 << 20, threads=1))
    async with serving(engine, limits) as (url, app):
        yield House(url, engine, app)
    await engine.close()


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as house:
        yield house
