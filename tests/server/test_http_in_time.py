"""Clients that take their time, or send without end: told so where they can be told, and not kept."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect

from backend.server.http_in_time import HttpInTime
from tests.server.conftest import House

LINE = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
HEAD = LINE + "Content-Type: application/json\r\nContent-Length: 900\r\n\r\n"
OTHER_TYPE = LINE + "Content-Type: text/plain\r\nContent-Length: 900\r\n\r\n"
HEALTH = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HELD = "still there"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpInTime, "head_seconds", 0.4)
    monkeypatch.setattr(HttpInTime, "body_seconds", 0.4)


async def answer(house: House, said: str, again: str = "", patience: float = 2.5) -> str:
    """All that the server says until it closes: to ``said``, then to ``again`` over and over; or ``HELD``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(said.encode())

    async def drip() -> None:
        while again:
            await asyncio.sleep(0.1)
            writer.write(again.encode())

    dripping = asyncio.create_task(drip())
    try:
        async with asyncio.timeout(patience):
            return (await reader.read()).decode()
    except TimeoutError:
        return HELD
    except ConnectionResetError:  # closed while something was on its way
        return ""
    finally:
        dripping.cancel()
        writer.close()


async def test_a_head_that_does_not_come(house: House) -> None:
    async with connect(house.socket) as websocket:  # which stays
        answers = await asyncio.gather(
            answer(house, ""), answer(house, HEAD[:-2]), answer(house, HEAD[:20], "x"), answer(house, "\r\n", "\r\n")
        )
        assert answers == ["", "", "", ""]
        await websocket.send('{"type": "x.ping", "t": 1}')
        assert "x.pong" in str(await websocket.recv())


async def test_a_later_head_that_does_not_come(house: House) -> None:
    """Line breaks, of which a parser makes nothing, do not help."""
    for said in await asyncio.gather(answer(house, HEALTH + "GET /health HT"), answer(house, HEALTH, "\r\n")):
        assert said.startswith("HTTP/1.1 200")


async def test_a_body_that_does_not_come(house: House) -> None:
    for said in await asyncio.gather(answer(house, HEAD + "{"), answer(house, HEAD + "{", " ")):
        head, _, body = said.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 408 Request Timeout\r\n") and "connection: close" in head.lower()
        error = json.loads(body)["error"]
        assert (error["code"], error["type"]) == ("request_timeout", "invalid_request_error")
        assert "within 0.4 s" in error["message"]
    await house.until_idle()
    assert house.engine.submitted == []


async def test_a_body_that_nobody_waits_for_any_more(house: House) -> None:
    """The answer, a refusal, is there at once; who goes on sending is not kept for it."""
    said = await answer(house, OTHER_TYPE, "x")
    assert "415" in said.partition("\r\n")[0]


async def test_a_head_without_end(house: House) -> None:
    said = await answer(house, LINE, "X-More: " + "y" * 30_000 + "\r\n")
    assert said.startswith("HTTP/1.1 431") and "head_too_big" in said


async def test_a_body_in_two_parts_and_a_long_answer_take_their_time(house: House) -> None:
    house.engine.prefill_seconds = 1.0
    body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "Hi"}]})
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    head = HEAD.replace("900", str(len(body)))
    for part in (head, body[:10], body[10:]):
        writer.write(part.encode())
        await asyncio.sleep(0.1)
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    assert line.startswith(b"HTTP/1.1 200")


async def test_a_late_second_body_does_not_end_the_first_answer(house: House) -> None:
    """Of requests that are sent one behind the other each is answered in its turn."""
    house.engine.prefill_seconds = 1.0
    body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "Hi"}]})
    said = await answer(house, HEAD.replace("900", str(len(body))) + body + HEAD)
    assert said.startswith("HTTP/1.1 200") and 0 < said.find('"finish_reason"') < said.find("HTTP/1.1 408")
