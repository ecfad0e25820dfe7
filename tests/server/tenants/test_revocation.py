"""What a key has opened ends with it."""

import asyncio
import json
import time

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from backend.server.auth import REVOKED
from backend.tenants.identity import SCOPES
from tests.server.tenants.conftest import CHAT, Walled, ask, events_until, until


async def test_a_revoked_key_loses_its_sockets_within_a_second(walled: Walled) -> None:
    walled.never_ends()
    async with walled.connected("a") as idle, walled.connected("a") as busy, walled.connected("b") as other:
        await busy.send(json.dumps({"type": "response.create", "input": "Hi"}))
        await events_until(busy, "response.output_text.delta")
        walled.tenancy.tenants.revoke_key(walled.keys["a"].key.id, actor="test")
        began = time.monotonic()
        for socket in (idle, busy):
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    await asyncio.wait_for(socket.recv(), 5)
            assert caught.value.rcvd is not None and caught.value.rcvd.code == REVOKED
        assert time.monotonic() - began < 1
        await until(lambda: not walled.engine.open)
        await other.send(json.dumps({"type": "x.ping", "t": 1}))
        assert json.loads(await other.recv())["type"] == "x.pong"
    assert (await walled.ask("a")).status_code == 401


async def test_a_key_expires_on_open_sockets_too(walled: Walled) -> None:
    walled.add_key("brief", "a", "chat", expires=int(time.time()) + 2)
    walled.tenancy.directory.refresh()
    async with walled.connected("brief") as socket:
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(socket.recv(), 5)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == REVOKED


async def test_a_revoked_key_loses_its_http_streams(walled: Walled) -> None:
    walled.never_ends()
    async with walled.client("a") as client, client.stream("POST", CHAT, json=ask(stream=True)) as response:
        assert response.status_code == 200
        await anext(response.aiter_bytes())
        walled.tenancy.tenants.revoke_key(walled.keys["a"].key.id, actor="test")
        await until(lambda: not walled.engine.open, 2)
    await walled.until_idle()


async def test_a_request_that_has_not_begun_is_told_401(walled: Walled) -> None:
    walled.never_ends()
    waiting = asyncio.create_task(walled.ask("a"))
    await until(lambda: bool(walled.engine.open))
    walled.tenancy.tenants.revoke_key(walled.keys["a"].key.id, actor="test")
    assert (await waiting).status_code == 401
    await walled.until_idle()


async def test_a_change_of_scopes_ends_what_was_open(walled: Walled) -> None:
    """An identity is what was decided about; when it is another, it has to be decided again."""
    identity = walled.tenancy.directory.authenticate(walled.keys["a"].secret)
    assert identity is not None
    assert not walled.tenancy.directory.still(msgspec.structs.replace(identity, scopes=frozenset(SCOPES)))
    assert not walled.tenancy.directory.still(msgspec.structs.replace(identity, tenant="b"))
