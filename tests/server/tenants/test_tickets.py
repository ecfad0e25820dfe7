"""What a browser opens a socket with."""

import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from backend.server.tickets import TICKET_SECONDS, TicketOffice
from backend.tenants.identity import Identity
from tests.server.tenants.conftest import Walled


async def test_a_ticket_opens_one_socket(walled: Walled) -> None:
    async with walled.client("a") as client:
        made = await client.post("/v1/tickets")
        assert made.status_code == 201 and made.headers["cache-control"] == "no-store"
        ticket = made.json()["ticket"]
    protocols: Any = ["banyan.v1", f"ticket.{ticket}"]
    async with connect(walled.socket, subprotocols=protocols, proxy=None) as socket:
        assert socket.subprotocol == "banyan.v1"
        opened = json.loads(await socket.recv())
        assert (opened["type"], opened["tenant"]) == ("x.session", "a")
    for again in (protocols, ["banyan.v1", "ticket."], ["banyan.v1", "ticket.x"], ["banyan.v1"]):
        with pytest.raises(InvalidStatus) as caught:
            await connect(walled.socket, subprotocols=again, proxy=None)
        assert caught.value.response.status_code == 401


async def test_a_ticket_ends_with_its_key(walled: Walled) -> None:
    async with walled.client("a") as client:
        ticket = (await client.post("/v1/tickets")).json()["ticket"]
    walled.tenancy.tenants.revoke_key(walled.keys["a"].key.id, actor="test")
    await walled.tenancy.look()
    protocols: Any = ["banyan.v1", f"ticket.{ticket}"]
    with pytest.raises(InvalidStatus):
        await connect(walled.socket, subprotocols=protocols, proxy=None)


def test_tickets_are_used_once_and_in_time() -> None:
    office, who = TicketOffice(), Identity("a", "k")
    one, two = office.issue(who, 0.0), office.issue(who, 0.0)
    assert one != two and len(one) >= 40
    assert office.redeem(one, 1.0) == who and office.redeem(one, 1.0) is None
    assert office.redeem(two, TICKET_SECONDS) is None
    assert office.redeem(office.issue(who, 100.0), 100.0 + TICKET_SECONDS - 0.01) == who


async def test_a_foreign_page_gets_no_ticket(walled: Walled) -> None:
    async with walled.client("a", origin="https://evil.example") as client:
        assert (await client.post("/v1/tickets")).status_code == 403
