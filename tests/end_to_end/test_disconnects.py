"""Clients that vanish leave nothing behind: no page, no lock, no request, no object; and the prefix stays cached."""

import asyncio
import gc
import logging
import random
import time
from collections import Counter

import httpx
import pytest

from backend.engine.process_client import ProcessGeneration
from backend.server.gate import Meter
from backend.server.limits import Limits
from backend.server.outbox import Outbox
from backend.server.record import Record
from backend.server.reply import Reply
from backend.server.responding import Responding
from backend.server.service import MeasuredGeneration
from backend.server.session import Session
from backend.server.socket import _Shell
from tests.end_to_end.breaking import Breaking
from tests.end_to_end.conftest import House, open_house

CLIENTS = 1000
WAVE = 100
OF_REQUESTS = (Session, _Shell, Outbox, Responding, Record, Reply, MeasuredGeneration, ProcessGeneration, Meter)


def objects_of_requests() -> list[object]:
    """All that are alive in this process."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, OF_REQUESTS)]


def left(house: House, earlier: list[object]) -> dict[str, int]:
    """What the server's process holds of requests and sockets: objects by class but those of ``earlier``, which belong
    to other tests, and entries of tables."""
    state = house.app.state
    service, responses = state.service, state.conductor.responses
    accounts = service.tenancy.limiter._accounts.values()
    known = {id(thing) for thing in earlier}
    held = {
        "sockets": len(state.sockets),
        "open responses": len(responses),
        "kept responses": len(responses._by_id),
        "kept bytes": responses.kept_bytes,
        "open requests": service.open_requests,
        "admitted": len(service.tenancy.gate._admitted),
        "connections": len(service.tenancy.connections._open),
        "streams of tenants": sum(account.streams + account.queued for account in accounts),
        "sockets of keys": sum(sum(account.sockets.values()) for account in accounts),
        "conducted": len(state.conductor._generations) + len(state.conductor._tasks),
        "generations": len(house.engine._generations),
        **Counter(type(thing).__name__ for thing in objects_of_requests() if id(thing) not in known),
    }
    return {name: count for name, count in held.items() if count}


class Tracebacks(logging.Handler):
    """Those that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.seen.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


async def test_a_thousand_that_break(businesses: dict) -> None:
    """In waves, at every stage of a request; then nothing is left of any, and no error was logged."""
    tracebacks = Tracebacks()
    systems = [business["system_prompt"] for business in businesses.values()]
    limits = Limits(sockets_per_key=WAVE, grace_seconds=1.0, ring_seconds=0.5)
    earlier = objects_of_requests()
    async with open_house(limits) as house:
        logging.getLogger("uvicorn.error").addHandler(tracebacks)  # the server has set its log up
        tasks = len(asyncio.all_tasks())
        breaking = Breaking(int(house.url.rpartition(":")[2]), systems, random.Random(5))
        for _ in range(CLIENTS // WAVE):
            await breaking.wave(WAVE)
        assert left(house, earlier)  # it sees what is there
        assert min(breaking.reached.values()) > 0.9 * CLIENTS / len(breaking.ways)
        await house.idle()
        until = time.monotonic() + 30
        while (left(house, earlier) or len(asyncio.all_tasks()) != tasks) and time.monotonic() < until:
            await asyncio.sleep(0.2)
        assert left(house, earlier) == {}
        assert len(asyncio.all_tasks()) == tasks
        assert tracebacks.seen == []
        await finds(house, systems)
        await house.idle()


async def finds(house: House, systems: list[str]) -> None:
    """Each system prompt is in the cache."""
    async with httpx.AsyncClient(base_url=house.url) as client:
        for system in systems:
            messages = [{"role": "system", "content": system}, {"role": "user", "content": "Hello"}]
            body = {"model": "banyan-demo", "messages": messages, "max_tokens": 3}
            usage = (await client.post("/v1/chat/completions", json=body)).json()["usage"]
            assert usage["prompt_tokens_details"]["cached_tokens"] > 0.9 * usage["prompt_tokens"]


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
