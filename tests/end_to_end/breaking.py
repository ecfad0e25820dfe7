"""Clients whose connections break: TCP resets at every stage of a request, over WebSocket and HTTP.

Raw sockets, so that nothing of a client library says goodbye.
"""

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

Bytes = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_TOKENS = 3000  # far more than could end by itself meanwhile


class Breaking:
    """Breaks connections to the server at ``port``. ``system``: the system prompts that its requests begin with."""

    def __init__(self, port: int, systems: list[str], dice: random.Random) -> None:
        self._port = port
        self._systems = systems
        self._dice = dice
        self.reached: Counter[str] = Counter()  # connections that broke where they were to
        self.ways: dict[str, Callable[[], Awaitable[bool]]] = {
            "in the handshake": self._in_the_handshake,
            "before the answer to the handshake": self._before_its_answer,
            "open and silent": self._silent,
            "in a frame": self._in_a_frame,
            "before the first token": self._before_the_first_token,
            "in the middle of an answer": self._in_an_answer,
            "in the middle of two answers, with a grace": self._with_a_grace,
            "in the middle of an SSE stream": self._in_a_stream,
            "before a whole answer": self._before_a_whole_answer,
            "in the body of a POST": self._in_a_body,
        }

    async def wave(self, count: int) -> None:
        """``count`` connections at once, of all kinds in turn."""
        names = list(self.ways)
        await asyncio.gather(*(self._break(names[index % len(names)]) for index in range(count)))

    async def _break(self, way: str) -> None:
        reached = await self.ways[way]()
        self.reached[way] += reached

    async def _in_the_handshake(self) -> bool:
        _, writer = await self._connect()
        handshake = _handshake("")
        writer.write(handshake[: self._dice.randrange(1, len(handshake) - 1)])
        await asyncio.sleep(0.01)
        _reset(writer)
        return True

    async def _before_its_answer(self) -> bool:
        _, writer = await self._connect()
        writer.write(_handshake(self._dice.choice(("", "banyan.v1"))))
        _reset(writer)
        return True

    async def _silent(self) -> bool:
        _, writer = await self._open("banyan.v1")
        _reset(writer)
        return True

    async def _in_a_frame(self) -> bool:
        _, writer = await self._open("")
        frame = _frame(self._question())
        writer.write(frame[: self._dice.randrange(1, len(frame) - 1)])
        await asyncio.sleep(0.01)
        _reset(writer)
        return True

    async def _before_the_first_token(self) -> bool:
        _, writer = await self._open("")
        writer.write(_frame(self._question()))
        await asyncio.sleep(0.02 * self._dice.random())
        _reset(writer)
        return True

    async def _in_an_answer(self) -> bool:
        reader, writer = await self._open("")
        writer.write(_frame(self._question()))
        reached = await _read_until(reader, b"output_text.delta", self._dice.randrange(1, 8))
        _reset(writer)
        return reached

    async def _with_a_grace(self) -> bool:
        reader, writer = await self._open("banyan.v1")
        for lane in ("a", "b"):
            writer.write(_frame(self._question() | {"stream_id": lane}))
        reached = await _read_until(reader, b"output_text.delta", self._dice.randrange(1, 8))
        _reset(writer)
        return reached

    async def _in_a_stream(self) -> bool:
        reader, writer = await self._connect()
        writer.write(_post("/v1/chat/completions", self._chat() | {"stream": True}))
        reached = await _read_until(reader, b"data: ", self._dice.randrange(1, 8))
        _reset(writer)
        return reached

    async def _before_a_whole_answer(self) -> bool:
        _, writer = await self._connect()
        if self._dice.random() < 0.5:
            writer.write(_post("/v1/chat/completions", self._chat() | {"n": 2}))
        else:
            asked = self._question()
            del asked["type"]
            writer.write(_post("/v1/responses", asked))
        await asyncio.sleep(0.2 * self._dice.random())
        _reset(writer)
        return True

    async def _in_a_body(self) -> bool:
        _, writer = await self._connect()
        writer.write(_post("/v1/chat/completions", self._chat())[:-1])
        await asyncio.sleep(0.01)
        _reset(writer)
        return True

    async def _connect(self) -> Bytes:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _open(self, protocol: str) -> Bytes:
        reader, writer = await self._connect()
        writer.write(_handshake(protocol))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return reader, writer

    def _question(self) -> dict[str, object]:
        return {
            "type": "response.create",
            "instructions": self._dice.choice(self._systems),
            "input": f"Tell me number {self._dice.randrange(10**6)}",
            "max_output_tokens": _TOKENS,
            "ignore_eos": True,
        }

    def _chat(self) -> dict[str, object]:
        asked = self._question()
        messages = [
            {"role": "system", "content": asked["instructions"]},
            {"role": "user", "content": asked["input"]},
        ]
        return {"model": "banyan-demo", "messages": messages, "max_tokens": _TOKENS, "ignore_eos": True}


async def _read_until(reader: asyncio.StreamReader, what: bytes, times: int) -> bool:
    """Until ``what`` has come so often; False when the connection ends before."""
    seen, rest = 0, b""
    while seen < times:
        data = await asyncio.wait_for(reader.read(1 << 16), 60)
        if not data:
            return False
        rest += data
        seen += rest.count(what)
        rest = rest[-len(what) + 1 :] if what not in rest else rest.rpartition(what)[2]
    return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _handshake(protocol: str) -> bytes:
    offered = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return (
        "GET /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\n{offered}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def _frame(event: dict[str, object]) -> bytes:
    """A text frame with a mask of zeros."""
    body = json.dumps(event).encode()
    size = bytes([0x80 | len(body)]) if len(body) < 126 else bytes([0x80 | 126]) + len(body).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + body


def _post(path: str, asked: dict[str, object]) -> bytes:
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
