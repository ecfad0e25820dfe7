"""A server with several tenants, and what its tests ask of it."""

import asyncio
import json
from array import array
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from backend.server.app import create_app
from backend.server.engine_settings import EngineSettings
from backend.server.prompts import PromptRegistry
from backend.server.run import uvicorn_config
from backend.server.service import ChatService
from backend.server.tenancy import Tenancy
from backend.tenants.database import database_url, open_database
from backend.tenants.identity import SCOPES
from backend.tenants.tenant_store import NewKey
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import House
from tests.server.fake_app import BAKERY
from tests.server.fake_engine import FakeEngine

CHAT = "/v1/chat/completions"
LONG = "You are the assistant of a hotel. " + "A room costs 90 euros. " * 20


class Walled(House):
    """A server with two tenants, ``a`` and ``b``, and an operator's, ``ops``."""

    tenancy: Tenancy
    keys: dict[str, NewKey]

    def client(self, key: str | None = None, **headers: str) -> httpx.AsyncClient:
        if key is not None:
            headers["authorization"] = f"Bearer {self.keys[key].secret}"
        return httpx.AsyncClient(base_url=self.http, timeout=30, headers=headers)

    def connected(self, key: str, **options: Any) -> connect:
        headers = {"authorization": f"Bearer {self.keys[key].secret}"}
        return connect(self.socket, additional_headers=headers, compression=None, proxy=None, **options)

    def add_key(self, name: str, tenant: str, *scopes: str, **options: Any) -> None:
        more: dict[str, Any] = {"live_keys": 100} | options
        chosen = {"scopes": scopes} if scopes else {}
        self.keys[name] = self.tenancy.tenants.add_key(tenant, actor="test", **chosen, **more)

    async def ask(self, key: str, **fields: Any) -> httpx.Response:
        async with self.client(key) as client:
            return await client.post(CHAT, json=ask(**fields))


def ask(**fields: object) -> dict[str, object]:
    return {"model": "small", "messages": [{"role": "user", "content": "Hi"}], **fields}


@pytest.fixture
async def walled(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> AsyncIterator[Walled]:
    database = open_database(database_url("", tmp_path / "data"))
    tenancy = Tenancy(database, PromptRegistry([BAKERY]))
    engine = FakeEngine(lambda prompt: (), vocab_size=tokenizer.vocab_size, max_context=1024)
    house = Walled(ChatService(engine, folder, "small", None, tenancy=tenancy), engine, tokenizer)
    house.answers("Three euros.")
    house.tenancy, house.keys = tenancy, {}
    for name in ("a", "b", "ops"):
        tenancy.tenants.add(name, actor="test")
    house.add_key("a", "a")
    house.add_key("b", "b")
    house.add_key("ops", "ops", *SCOPES)
    tenancy.directory.refresh()
    settings = EngineSettings(house.service)
    tenancy.changed.append(settings.changed)
    await settings.sync()
    await tenancy.start()
    server = uvicorn.Server(
        uvicorn_config(create_app(house.service, tmp_path / "ui"), "127.0.0.1", 0, log_level="warning")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    house.port = server.servers[0].sockets[0].getsockname()[1]
    yield house
    server.should_exit = True
    await task
    await tenancy.close()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def responses(walled: Walled, key: str, **fields: Any) -> dict[str, Any]:
    """The last event of one response."""
    async with walled.connected(key) as socket:
        await socket.send(json.dumps({"type": "response.create", "input": "Hi", **fields}))
        return (await events_until(socket, "response.completed"))[-1]


def system_of(walled: Walled) -> str:
    """The system prompt that the engine got last."""
    ids = list(array("I", walled.engine.submitted[-1].prompt))
    text = walled.tokenizer.library.decode(ids, skip_special_tokens=False)
    return text.partition("system\n")[2].partition("<|im_end|>")[0]


async def events_until(socket: ClientConnection, last: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] not in (last, "error"):
        found.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
    return found
