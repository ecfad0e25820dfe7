"""What ``/openapi.json`` promises, tried out by schemathesis: no 5xx, and others are answered as before."""

import asyncio
import sys

import httpx

from tests.server.conftest import ANSWER, House


async def ask(house: House) -> str:
    """A canary: one short chat completion."""
    body = {"model": "small", "messages": [{"role": "user", "content": "How much is a croissant?"}], "temperature": 0}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{house.http}/v1/chat/completions", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


async def test_no_5xx(house: House) -> None:
    assert await ask(house) == ANSWER
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{house.http}/openapi.json"]
    command += ["--checks", "not_a_server_error", "--max-examples", "25", "--seed", "1", "--workers", "1"]
    command += ["--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-color"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    during = [await ask(house) for _ in range(3)]
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said[-6000:]
    assert "/v1/responses" in (await fetched(house)) and during == [ANSWER] * 3
    assert await ask(house) == ANSWER
    assert house.service.open_requests == 0 and not house.engine.open


async def fetched(house: House) -> str:
    """The document."""
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{house.http}/openapi.json")).text
