"""Tenants before the real engine: what one has computed no other finds, unless it was published for all."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest_asyncio
import uvicorn

from backend.engine.options import EngineOptions
from backend.engine.process_client import start_engine
from backend.engine.supervised import SupervisedEngine
from backend.server.app import create_app
from backend.server.engine_settings import EngineSettings
from backend.server.run import uvicorn_config
from backend.server.service import ChatService
from backend.server.tenancy import Tenancy
from backend.tenants.database import database_url, open_database
from tests.end_to_end.conftest import DEMO


@dataclass
class Tenants:
    """A running server with the tenants ``a`` and ``b``."""

    url: str
    tenancy: Tenancy
    keys: dict[str, str]
    settings: EngineSettings
    engine: SupervisedEngine

    async def cached(self, key: str, system: str) -> int:
        """Ask something on a system prompt; how many of its tokens were there already."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "When are you open?"}]
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            answer = await client.post(
                "/v1/chat/completions",
                json={"model": "demo", "messages": messages, "max_tokens": 2, "temperature": 0},
                headers={"authorization": f"Bearer {self.keys[key]}"},
            )
        assert answer.status_code == 200, answer.text
        return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


@pytest_asyncio.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[Tenants]:
    tenancy = Tenancy(open_database(database_url("", tmp_path)))
    keys = {}
    for name in ("a", "b"):
        tenancy.tenants.add(name, actor="test")
        keys[name] = tenancy.tenants.add_key(name, actor="test").secret
    keys["a-named"] = tenancy.tenants.add_key("a", actor="test", namespace="n").secret
    tenancy.directory.refresh()
    wanted = EngineOptions(model=str(DEMO / "model"), kv_memory=64 << 20, threads=1)
    engine = SupervisedEngine(await start_engine(wanted), partial(start_engine, wanted))
    service = ChatService(engine, DEMO / "model", "demo", tenancy=tenancy)
    settings = EngineSettings(service)
    engine.restarted.append(settings.engine_restarted)
    await tenancy.start()
    server = uvicorn.Server(uvicorn_config(create_app(service), "127.0.0.1", 0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Tenants(f"http://127.0.0.1:{port}", tenancy, keys, settings, engine)
    server.should_exit = True
    await serving
    await tenancy.close()
    await engine.close()


async def test_what_is_shared_and_what_is_not(tenants: Tenants, businesses: dict[str, dict]) -> None:
    private, public = (entry["system_prompt"] for entry in list(businesses.values())[:2])
    assert await tenants.cached("a", private) == 0
    own = await tenants.cached("a", private)
    assert own > 200
    assert await tenants.cached("b", private) == 0
    assert await tenants.cached("a-named", private) == 0
    registry = tenants.tenancy.registry
    registry.publish("a", "shop", public, actor="test", public=True)
    registry.publish("b", "secret", private + " Our code word is mango.", actor="test")
    await tenants.tenancy.look()
    await tenants.settings.sync()
    assert await tenants.cached("b", public) > 200  # the first time that anybody asks
    assert await tenants.cached("b", private + " Our code word is mango.") > own - 32  # warmed when it was published
    assert await tenants.cached("a", private + " Our code word is mango.") <= own


async def test_what_was_warm_is_warm_again_after_the_engine_died(tenants: Tenants, businesses: dict[str, dict]) -> None:
    private, public = (entry["system_prompt"] for entry in list(businesses.values())[:2])
    tenants.tenancy.registry.publish("a", "private", private, actor="test")
    tenants.tenancy.registry.publish("a", "public", public, actor="test", public=True)
    await tenants.tenancy.look()
    await tenants.settings.sync()
    os.kill(tenants.engine._client.process.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while not tenants.engine.restarts:
            await asyncio.sleep(0.02)
        await asyncio.gather(*tenants.settings._tasks)
    assert await tenants.cached("a", private) > 200
    assert await tenants.cached("b", public) > 200
    assert await tenants.cached("b", private) < 32
