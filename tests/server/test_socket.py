"""The shell over real sockets: what is on the wire, and that nothing stays when a peer goes."""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from backend.server.app import create_app
from backend.server.limits import Limits
from backend.server.run import uvicorn_config
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import ANSWER, House, make_house, running, serve

Event = dict[str, Any]


STANDING_PEER = """
import json, sys
from websockets.sync.client import connect
with connect(f"ws://127.0.0.1:{sys.argv[1]}/v1/responses", compression=None) as websocket:
    websocket.send(json.dumps({"type": "response.create", "input": "Hi", "max_output_tokens": 900}))
    while json.loads(websocket.recv())["type"] != "response.output_text.delta":
        pass
    print("begun", flush=True)
    while True:
        websocket.recv()
"""


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


async def test_clients_do_not_fill_the_log(house: House) -> None:
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append  # type: ignore[method-assign]
    logging.getLogger("uvicorn.error").addHandler(handler)
    for origin, path in (("https://evil.example", "/v1/responses"), (house.http, "/v1/nothing")):
        with pytest.raises(InvalidStatus):
            await connect(house.http.replace("http", "ws") + path, origin=origin)  # type: ignore[arg-type]
    raw = await asyncio.to_thread(_raw_client, house.port, 1 << 16)
    with raw:
        raw.sendall(_masked(b'{"type": "\xff"}'))
        assert (await asyncio.to_thread(raw.recv, 4096))[2:4] == (1007).to_bytes(2, "big")
    logging.getLogger("uvicorn.error").removeHandler(handler)
    assert heard == []


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
    """One asks for sixteen answers and never reads; eight stream beside it. Those are as fast as without it."""
    house.never_ends()
    house.engine.seconds_per_token = 0.01
    house.service.model.max_context = 1 << 20

    async def stream(seconds: float) -> list[float]:
        gaps = []
        async with connect(house.socket, compression=None) as websocket:
            await say(websocket, type="response.create", input="Hi")
            await until(websocket, "response.output_text.delta")
            end = last = asyncio.get_running_loop().time()
            end += seconds
            while last < end:
                await websocket.recv()
                now = asyncio.get_running_loop().time()
                gaps.append(now - last)
                last = now
        return gaps

    def p99(all_gaps: list[list[float]]) -> float:
        flat = sorted(gap for gaps in all_gaps for gap in gaps)
        return flat[int(len(flat) * 0.99)]

    alone = p99(await asyncio.gather(*(stream(2.0) for _ in range(8))))
    slow = await asyncio.to_thread(_raw_client, house.port, receive_buffer=4096)
    lanes = [json.dumps({"type": "response.create", "input": "Hi", "stream_id": str(i)}).encode() for i in range(16)]
    await asyncio.to_thread(slow.sendall, b"".join(_masked(f) for f in lanes))
    beside = p99(await asyncio.gather(*(stream(4.0) for _ in range(8))))
    # A server that waits for the slow one stands still for seconds; a busy machine for less.
    assert beside < 2 * alone + 0.5, (alone, beside)
    house.engine.seconds_per_token = 0.0  # now as much as there can be, so that the budget is soon spent
    slowest = {submit.request for submit in house.engine.submitted} - set(house.engine.cancelled)
    assert len(slowest) == 16
    async with asyncio.timeout(60):
        await house.until_idle()
    slow.close()
    assert len(house.engine.cancelled) == len(house.engine.submitted)  # none came to its end
    async with connect(house.socket) as websocket:
        house.answers(ANSWER)
        await say(websocket, type="response.create", input="Hi")
        assert text_of(await until(websocket, "response.completed")) == ANSWER


async def test_a_peer_that_stands_still_loses_its_request(
    folder: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    """Half open: its kernel takes what comes and says nothing of its end, and nobody answers pings."""
    usual = uvicorn_config(create_app(make_house(folder, tokenizer).service, tmp_path), "127.0.0.1", 0)
    assert usual.ws_ping_interval == usual.ws_ping_timeout == 20.0
    house = make_house(folder, tokenizer)
    house.never_ends()
    house.engine.seconds_per_token = 0.1  # so little that no buffer is ever full
    async with serve(house, create_app(house.service, tmp_path), ping_seconds=0.3):
        peer = subprocess.Popen(
            [sys.executable, "-c", STANDING_PEER, str(house.port)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        try:
            assert peer.stdout is not None
            assert await asyncio.to_thread(peer.stdout.readline) == b"begun\n"
            os.kill(peer.pid, signal.SIGSTOP)
            assert len(house.engine.open) == 1
            await house.until_idle()
            assert len(house.engine.cancelled) == 1
        finally:
            peer.kill()
            peer.wait()


async def test_who_was_too_slow_reads_the_rest_after_coming_back(house: House) -> None:
    """4490 on a socket of ours; the answer ends without a reader, and x.resume has all of it."""
    words = ANSWER + " " + "A croissant costs three euros. " * 400
    house.service.model.max_context = 1 << 20
    house.answers(words)
    async with connect(house.socket, subprotocols=["banyan.v1"], max_queue=1) as slow:  # type: ignore[list-item]
        slow.transport.pause_reading()
        for lane in range(16):
            await say(slow, type="response.create", input="Hi", stream_id=str(lane))
        await house.until_idle()
        slow.transport.resume_reading()
        seen: dict[str, list[Event]] = {}
        ids: dict[str, str] = {}
        with pytest.raises(ConnectionClosed):
            while True:
                event = await hear(slow)
                if "sequence_number" in event:
                    seen.setdefault(event["stream_id"], []).append(event)
                if event["type"] == "response.created":
                    ids[event["stream_id"]] = event["response"]["id"]
        assert slow.close_code == 4490
    async with connect(house.socket, subprotocols=["banyan.v1"]) as websocket:  # type: ignore[list-item]
        await hear(websocket)
        cut = {lane: response for lane, response in ids.items() if seen[lane][-1]["type"] != "response.completed"}
        assert cut
        for lane, response in cut.items():
            await say(websocket, type="x.resume", response_id=response, after=seen[lane][-1]["sequence_number"])
            rest = await until(websocket, "response.completed")
            both = [*seen[lane], *rest]
            assert [event["sequence_number"] for event in both] == list(range(len(both)))
            assert text_of(both) == words


async def test_a_lost_connection_is_taken_up_by_another(house: House) -> None:
    house.engine.seconds_per_token = 0.05
    websocket = await connect(house.socket, subprotocols=["banyan.v1"])  # type: ignore[list-item]
    await say(websocket, type="response.create", input="Hi", stream_id="a")
    seen = await until(websocket, "response.output_text.delta")
    _reset(websocket)
    await asyncio.sleep(0.1)
    assert house.engine.open and not house.engine.cancelled
    async with connect(house.socket, subprotocols=["banyan.v1"]) as other:  # type: ignore[list-item]
        await hear(other)
        response = next(e for e in seen if e["type"] == "response.created")["response"]["id"]
        await say(other, type="x.resume", response_id=response, after=seen[-1]["sequence_number"])
        rest = await until(other, "response.completed")
        assert text_of(seen[1:] + rest) == ANSWER
        numbers = [event["sequence_number"] for event in seen[1:] + rest]
        assert numbers == list(range(len(numbers)))
        await say(other, type="response.create", input="And?", previous_response_id=response)
        await until(other, "response.completed")


async def test_nobody_takes_it_up(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    async with running(make_house(folder, tokenizer, Limits(grace_seconds=0.5)), tmp_path) as house:
        house.never_ends()
        websocket = await connect(house.socket, subprotocols=["banyan.v1"])  # type: ignore[list-item]
        await say(websocket, type="response.create", input="Hi")
        await until(websocket, "response.output_text.delta")
        _reset(websocket)
        await asyncio.sleep(0.2)
        assert not house.engine.cancelled
        await house.until_idle()
        assert len(house.engine.cancelled) == 1


async def test_msgpack_in_binary_frames(house: House) -> None:
    async with connect(house.socket, subprotocols=["banyan.v1+msgpack", "banyan.v1"]) as websocket:  # type: ignore[list-item]
        assert websocket.subprotocol == "banyan.v1+msgpack"
        opened = msgspec.msgpack.decode(await websocket.recv(decode=False))
        assert opened["type"] == "x.session" and opened["limits"]["lanes"] == 16
        await websocket.send(msgspec.msgpack.encode({"type": "response.create", "input": "Hi"}))
        events: list[Event] = []
        while not events or events[-1]["type"] != "response.completed":
            message = await websocket.recv()
            assert isinstance(message, bytes)
            events.append(msgspec.msgpack.decode(message))
        assert text_of(events) == ANSWER


async def test_close_codes_of_time(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    limits = Limits(first_message_seconds=0.5, idle_seconds=1.5, age_seconds=4.0)
    async with running(make_house(folder, tokenizer, limits), tmp_path) as house:
        silent, idle, old = [await connect(house.socket) for _ in range(3)]
        await say(idle, type="x.ping")
        for _ in range(30):
            with contextlib.suppress(ConnectionClosed):
                await say(old, type="x.ping")
                await hear(old)
            await asyncio.sleep(0.2)
        for websocket, code in ((silent, 4408), (idle, 4499), (old, 4499)):
            with pytest.raises(ConnectionClosed):
                while True:
                    await websocket.recv()
            assert websocket.close_code == code


async def test_a_key_has_only_so_many_sockets_and_loses_all_when_it_is_revoked(
    folder: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    house = make_house(folder, tokenizer, Limits(sockets_per_key=3))
    async with running(house, tmp_path):
        house.never_ends()
        house.service.model.max_context = 1 << 20
        sockets = [await connect(house.socket, subprotocols=["banyan.v1"]) for _ in range(3)]  # type: ignore[list-item]
        with pytest.raises(InvalidStatus) as refused:
            await connect(house.socket)
        assert refused.value.response.status_code == 429
        code = json.loads(refused.value.response.body or b"")["error"]["code"]
        assert code == "websocket_connection_limit_reached"
        await say(sockets[0], type="response.create", input="Hi")
        await until(sockets[0], "response.output_text.delta")
        house.service.tenancy.connections.end(lambda identity: False)
        await house.until_idle()  # no grace for a revoked key
        assert len(house.engine.cancelled) == 1
        for websocket in sockets:
            with pytest.raises(ConnectionClosed):
                while True:
                    await websocket.recv()
            assert websocket.close_code == 4401
        assert len(house.app.state.sockets) == 0


async def test_live_topics(house: House) -> None:
    house.never_ends()
    house.engine.step_ms = 7.5
    async with connect(house.socket) as websocket:
        await say(websocket, type="response.create", input="Hi", stream_id="a")
        (created, *_) = await until(websocket, "response.output_text.delta")
        await say(websocket, type="x.subscribe", topics=["stats", "tree", "batch"], max_hz=10)
        seen: dict[str, list[Event]] = {"x.stats": [], "x.tree": [], "x.batch": []}
        while min(map(len, seen.values())) < 2:
            event = await hear(websocket)
            if event["type"] in seen:
                seen[event["type"]].append(event)
        (lane,) = seen["x.batch"][0]["lanes"]
        assert lane["id"] == created["response"]["id"] and lane["tenant"] == "local"
        assert seen["x.stats"][1]["of"] == "server" and seen["x.stats"][1]["running"] == 1
        assert seen["x.stats"][1]["steps_per_s"] > 0 and seen["x.stats"][1]["step_ms"] == 7.5
        await say(websocket, type="x.unsubscribe")
        await say(websocket, type="x.ping", t=1)
        while (await hear(websocket))["type"] != "x.pong":
            pass
        for _ in range(200):
            assert not (await hear(websocket))["type"].startswith("x.")


async def test_disconnects_at_random_tokens_leave_nothing(house: House) -> None:
    house.never_ends()
    dice = random.Random(7)

    async def one(abrupt: bool, tokens: int) -> None:
        websocket = await connect(house.socket, max_queue=None)  # with a full one its close would wait for ten seconds
        await say(websocket, type="response.create", input="Hi", stream_id="a")
        await say(websocket, type="response.create", input="Hello", stream_id="b")
        for _ in range(tokens):
            await websocket.recv()
        if abrupt:
            _reset(websocket)
        else:
            await websocket.close()

    for _ in range(3):
        await asyncio.gather(*(one(dice.random() < 0.7, dice.randrange(30)) for _ in range(12)))
    await house.until_idle()
    assert len(house.engine.cancelled) == len(house.engine.submitted)


def _reset(websocket: ClientConnection) -> None:
    """RST instead of a closing handshake."""
    raw = websocket.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    websocket.transport.abort()


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


async def test_a_response_that_breaks_breaks_no_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are handed over within the engine's reader, which all responses share."""
    responses = house.app.state.conductor.responses
    real, broken = responses.engine_event, []

    def break_one(key: int, event: object, now: float) -> None:
        if not broken or key == broken[0]:
            broken.append(key)
            raise ZeroDivisionError
        real(key, event, now)

    monkeypatch.setattr(responses, "engine_event", break_one)
    async with asyncio.timeout(20), connect(house.socket) as first, connect(house.socket) as second:
        await say(first, type="response.create", input="Hi")
        failed = (await until(first, "response.failed", "response.completed"))[-1]
        await say(second, type="response.create", input="Hi")
        assert text_of(await until(second, "response.failed", "response.completed")) == ANSWER
    assert failed["response"]["error"]["code"] == "internal_error"
    await house.until_idle()
    assert house.engine.cancelled == broken[:1]
