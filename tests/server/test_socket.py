"""The shell over real sockets: what is on the wire, and that nothing stays when a peer goes."""

import asyncio
import json
import random
import socket
import struct
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server.conftest import ANSWER, House

Event = dict[str, Any]


async def say(websocket: ClientConnection, **event: object) -> None:
    await websocket.send(json.dumps(event))


async def hear(websocket: ClientConnection) -> Event:
    event = json.loads(await websocket.recv())
    assert isinstance(event, dict)
    return event


async def until(websocket: ClientConnection, *types: str) -> list[Event]:
    events = [await hear(websocket)]
    while events[-1]["type"] not in types:
        events.append(await hear(websocket))
    return events


def text_of(events: list[Event]) -> str:
    return "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")


async def test_a_turn_with_our_subprotocol(house: House) -> None:
    async with connect(house.socket, subprotocols=["other", "banyan.v1"]) as websocket:  # type: ignore[list-item]
        assert websocket.subprotocol == "banyan.v1"
        assert (await hear(websocket))["type"] == "x.session"
        await say(websocket, type="response.create", prompt={"id": "bakery"}, input="Hi")
        first = await until(websocket, "response.completed")
        assert text_of(first) == ANSWER
        assert next(e for e in first if e["type"] == "x.cache")["est_ttft_saved_ms"] is None
        await say(websocket, type="response.create", prompt={"id": "bakery"}, input="Hello")
        second = await until(websocket, "response.completed")
        (cache,) = (e for e in second if e["type"] == "x.cache")
        assert cache["cached_tokens"] == cache["by"]["system"] > 300
        assert cache["est_ttft_saved_ms"] > 0
    await house.until_idle()


async def test_without_it_none_is_selected(house: House) -> None:
    async with connect(house.socket) as websocket:
        assert websocket.subprotocol is None
        await say(websocket, type="x.ping", t=1)
        assert await hear(websocket) == {"type": "x.pong", "t": 1}


async def test_lanes_run_at_once(house: House) -> None:
    house.engine.seconds_per_token = 0.002
    async with connect(house.socket) as websocket:
        for lane in "abc":
            await say(websocket, type="response.create", input=f"say {lane}", stream_id=lane)
        events: list[Event] = []
        while sum(e["type"] == "response.completed" for e in events) < 3:
            events.append(await hear(websocket))
    for lane in "abc":
        mine = [e for e in events if e["stream_id"] == lane]
        assert text_of(mine) == ANSWER
        assert [e["sequence_number"] for e in mine] == list(range(len(mine)))


async def test_a_large_prompt_is_prepared_beside_the_loop(house: House) -> None:
    async with connect(house.socket) as websocket:
        await say(websocket, type="response.create", input="croissant " * 5000)
        error = await hear(websocket)
        assert error["error"]["code"] == "context_length_exceeded"
        await say(websocket, type="response.create", input="Hi")
        await until(websocket, "response.completed")


async def test_cancel_frees_the_request(house: House) -> None:
    house.never_ends()
    async with connect(house.socket) as websocket:
        await say(websocket, type="response.create", input="Hi", stream_id="a")
        await until(websocket, "response.output_text.delta")
        await say(websocket, type="response.cancel", stream_id="a")
        events = await until(websocket, "response.incomplete")
        assert events[-1]["response"]["incomplete_details"]["reason"] == "cancelled"
        await house.until_idle()
        assert len(house.engine.cancelled) == 1


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
async def test_a_foreign_origin_is_refused_before_accepting(house: House, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(house.socket, origin=origin):  # type: ignore[arg-type]
            pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["error"]["code"] == "origin_not_allowed"


async def test_our_own_origin_is_welcome(house: House) -> None:
    async with connect(house.socket, origin=house.http) as websocket:  # type: ignore[arg-type]
        await say(websocket, type="x.ping")
        assert (await hear(websocket))["type"] == "x.pong"


async def test_another_path_is_refused(house: House) -> None:
    for path in ("/v1/nothing", "/nothing"):
        with pytest.raises(InvalidStatus):
            async with connect(f"ws://127.0.0.1:{house.port}{path}"):
                pass


async def test_a_message_too_big_closes_with_1009(house: House) -> None:
    async with connect(house.socket) as websocket:
        with pytest.raises(ConnectionClosed):
            await websocket.send("x" * (1 << 20 | 1))
            await websocket.recv()
        assert websocket.close_code == 1009


async def test_binary_frames_and_garbage_keep_the_socket_open(house: House) -> None:
    async with connect(house.socket) as websocket:
        await websocket.send(b"\xff\x00")
        assert (await hear(websocket))["error"]["code"] == "invalid_json"
        await websocket.send(b'{"type": "x.ping"}')
        assert (await hear(websocket))["type"] == "x.pong"


async def test_malformed_again_and_again_closes_with_4400(house: House) -> None:
    async with connect(house.socket) as websocket:
        with pytest.raises(ConnectionClosed):
            for _ in range(100):
                await websocket.send("{")
                await websocket.recv()
        assert websocket.close_code == 4400


async def test_the_engine_dies(house: House) -> None:
    house.never_ends()
    async with connect(house.socket) as websocket:
        await say(websocket, type="response.create", input="Hi")
        await until(websocket, "response.output_text.delta")
        house.engine.die()
        (*_, failed) = await until(websocket, "response.failed")
        assert failed["response"]["error"]["code"] == "engine_error"
        await say(websocket, type="response.create", input="Hi")
        (*_, failed) = await until(websocket, "response.failed")
        assert failed["response"]["error"]["code"] == "engine_error"
    await house.until_idle()


async def test_a_slow_reader_is_closed_and_the_others_go_on(house: House) -> None:
    house.never_ends()
    house.engine.seconds_per_token = 0.0
    house.service.model.max_context = 1 << 20
    slow = await asyncio.to_thread(_raw_client, house.port, receive_buffer=4096)
    frame = json.dumps({"type": "response.create", "input": "Hi"}).encode()
    lanes = [json.dumps({"type": "response.create", "input": "Hi", "stream_id": str(i)}).encode() for i in range(15)]
    await asyncio.to_thread(slow.sendall, b"".join(_masked(f) for f in [frame, *lanes]))
    async with asyncio.timeout(60):
        while not house.engine.submitted:
            await asyncio.sleep(0.005)
        await house.until_idle()
    slow.close()
    assert len(house.engine.cancelled) == len(house.engine.submitted)  # none came to its end
    async with connect(house.socket) as websocket:
        house.answers(ANSWER)
        await say(websocket, type="response.create", input="Hi")
        assert text_of(await until(websocket, "response.completed")) == ANSWER


async def test_disconnects_at_random_tokens_leave_nothing(house: House) -> None:
    house.never_ends()
    dice = random.Random(7)

    async def one(abrupt: bool, tokens: int) -> None:
        websocket = await connect(house.socket)
        await say(websocket, type="response.create", input="Hi", stream_id="a")
        await say(websocket, type="response.create", input="Hello", stream_id="b")
        for _ in range(tokens):
            await websocket.recv()
        if abrupt:  # RST instead of a closing handshake
            raw = websocket.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            websocket.transport.abort()
        else:
            await websocket.close()

    for _ in range(3):
        await asyncio.gather(*(one(dice.random() < 0.7, dice.randrange(30)) for _ in range(12)))
    await house.until_idle()
    assert len(house.engine.cancelled) == len(house.engine.submitted)


def _raw_client(port: int, receive_buffer: int) -> socket.socket:
    """A WebSocket that never reads after the handshake."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.connect(("127.0.0.1", port))
    raw.sendall(
        b"GET /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b"101" in raw.recv(4096)
    return raw


def _masked(payload: bytes) -> bytes:
    """A text frame with a mask of zeros."""
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload
