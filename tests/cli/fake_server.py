"""A server for tests of our clients: events and SSE chunks for answers of counted words, and failures on demand.

It answers ``max_output_tokens`` words, counts a prompt word as two tokens, and calls a prompt cached from the second
time on. A user message that contains FAIL fails, BREAK drops the connection, SLOW waits for a cancel.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

TOKENS_PER_WORD = 2
OVERHEAD = 7


class FakeServer:
    """What it was sent, for the test to look at."""

    def __init__(self, *, usage: bool = True) -> None:
        self.usage = usage
        self.created: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.headers: list[str | None] = []
        self.deaf = False  # True: a cancel is noted, and nothing follows
        self.holding = False  # True: nothing is answered
        self.open_now = 0
        self.open_most = 0
        self._seen: set[str] = set()
        self.app = Starlette(
            routes=[
                WebSocketRoute("/v1/responses", self.responses),
                Route("/v1/chat/completions", self.completions, methods=["POST"]),
            ]
        )

    def cached(self, system: str) -> int:
        """Tokens of ``system`` that an earlier request brought."""
        known = system in self._seen
        self._seen.add(system)
        return TOKENS_PER_WORD * len(system.split()) if known else 0

    async def responses(self, socket: WebSocket) -> None:
        """One WebSocket."""
        self.headers.append(socket.headers.get("authorization"))
        await socket.accept()
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                event = json.loads(await socket.receive_text())
                if event["type"] == "response.create":
                    await self.answer(socket, event)
        self.open_now -= 1

    async def answer(self, socket: WebSocket, event: dict[str, Any]) -> None:
        """One response; ids count up."""
        self.created.append(event)
        if self.holding:
            await socket.receive_text()
        text, system = event["input"], event.get("instructions") or ""
        if "FAIL" in text:
            await socket.send_json({"type": "error", "error": {"code": "engine_error", "message": "it broke"}})
            return
        if "BREAK" in text:
            await socket.close(1011)
            return
        ident = f"resp_{len(self.created)}"
        await socket.send_json({"type": "response.created", "response": {"id": ident}})
        words, reason = event.get("max_output_tokens") or 3, "max_output_tokens"
        await socket.send_json({"type": "x.cache", "cached_tokens": 0})
        for word in range(words):
            await socket.send_json({"type": "response.output_text.delta", "delta": f" w{word}"})
            if "SLOW" in text:
                cancel = json.loads(await socket.receive_text())
                self.cancelled.append(cancel["response_id"])
                if self.deaf:
                    return
                words, reason = word + 1, "cancelled"
                break
        prompt = OVERHEAD + TOKENS_PER_WORD * len(f"{system} {text}".split())
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": self.cached(system)},
            "output_tokens": words,
        }
        body = {"id": ident, "incomplete_details": {"reason": reason}} | ({"usage": usage} if self.usage else {})
        await socket.send_json({"type": "response.incomplete", "response": body})

    async def completions(self, request: Request) -> Response:
        """One streamed completion."""
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers.get("authorization"))
        text = body["messages"][-1]["content"]
        if "FAIL" in text:
            return JSONResponse({"error": {"message": "it broke"}}, status_code=503)
        return StreamingResponse(self.chunks(body), media_type="text/event-stream")

    async def chunks(self, body: dict[str, Any]) -> AsyncIterator[str]:
        """SSE lines; two words in each chunk."""
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        words = [f" w{word}" for word in range(body["max_tokens"])]
        yield _data({"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}]})
        for start in range(0, len(words), 2):
            await asyncio.sleep(0.001)
            yield _data({"choices": [{"delta": {"content": "".join(words[start : start + 2])}}]})
            if "BREAK" in body["messages"][-1]["content"]:
                self.open_now -= 1
                return
        yield _data({"choices": [{"delta": {}, "finish_reason": "length"}]})
        if self.usage:
            system = body["messages"][0]["content"]
            prompt = OVERHEAD + TOKENS_PER_WORD * sum(len(m["content"].split()) for m in body["messages"])
            details = {"cached_tokens": self.cached(system)}
            usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "prompt_tokens_details": details}
            yield _data({"choices": [], "usage": usage})
        self.open_now -= 1
        yield "data: [DONE]\n\n"


def _data(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


@contextlib.contextmanager
def serving(fake: FakeServer) -> Iterator[str]:
    """Serve on a free port in a thread; ``127.0.0.1:PORT``."""
    config = uvicorn.Config(
        fake.app, host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
