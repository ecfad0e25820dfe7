"""Clients that vanish leave nothing behind: no page, no lock, no request; and the prefix stays cached."""

import asyncio
import json
import random
import socket
import struct

import httpx
import pytest
import websockets

from tests.end_to_end.conftest import House

CLIENTS = 40


async def vanish(house: House, system: str, after: int, rng: random.Random) -> int:
    """Read ``after`` deltas of an answer, then reset the connection; returns how many were read."""
    async with websockets.connect(house.socket_url, compression=None) as connection:
        await connection.send(
            json.dumps(
                {
                    "type": "response.create",
                    "instructions": system,
                    "input": f"Tell me number {rng.randrange(10**6)}",
                    "max_output_tokens": 3000,  # far more than could end by itself while the test waits
                    "ignore_eos": True,
                }
            )
        )
        seen = 0
        while seen < after:
            event = json.loads(await connection.recv())
            assert event["type"] != "error", event
            seen += event["type"] == "response.output_text.delta"
            if event["type"] == "response.completed":
                break
        raw = connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST
        connection.transport.abort()
    return seen


async def test_sockets_reset_at_random_tokens(house: House, businesses: dict) -> None:
    rng = random.Random(5)
    prompts = [b["system_prompt"] for b in businesses.values()]
    seen = await asyncio.gather(*(vanish(house, rng.choice(prompts), rng.randrange(30), rng) for _ in range(CLIENTS)))
    assert len(seen) == CLIENTS
    await house.idle()
    report = await house.engine.inspect(check=True)
    assert report.load.pages_cached > 0
    async with httpx.AsyncClient(base_url=house.url) as client:
        for prompt in prompts:
            answer = await client.post(
                "/v1/chat/completions",
                json={
                    "model": "banyan-demo",
                    "messages": [{"role": "system", "content": prompt}, {"role": "user", "content": "Hello"}],
                    "max_tokens": 3,
                },
            )
            usage = answer.json()["usage"]
            assert usage["prompt_tokens_details"]["cached_tokens"] > 0.9 * usage["prompt_tokens"]
    await house.idle()


async def test_http_clients_that_give_up(house: House, businesses: dict) -> None:
    """Also a request that does not stream ends when nobody waits for it."""
    body = {
        "model": "banyan-demo",
        "messages": [
            {"role": "system", "content": businesses["hotel"]["system_prompt"]},
            {"role": "user", "content": "Hi"},
        ],
        "max_tokens": 3000,
        "ignore_eos": True,
    }

    async def give_up(stream: bool, seconds: float) -> None:
        async with httpx.AsyncClient(base_url=house.url, timeout=60) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await client.post("/v1/chat/completions", json=body | {"stream": stream})

    await asyncio.gather(*(give_up(index % 2 == 0, 0.2 + 0.05 * index) for index in range(8)))
    await house.idle()
