"""The HTTP routes over a real server."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from backend.engine.messages import Load, Output, TokenCounts
from backend.server.app import create_app
from backend.server.sampling import Asked
from tests.server.conftest import ANSWER, House

CHAT = "/v1/chat/completions"


def ask(**fields: object) -> dict[str, object]:
    return {"model": "small", "messages": [{"role": "user", "content": "Hi"}], **fields}


@pytest.fixture
async def client(house: House) -> Any:
    async with httpx.AsyncClient(base_url=house.http, timeout=30) as client:
        yield client


async def chunks(client: httpx.AsyncClient, **fields: object) -> list[Any]:
    async with client.stream("POST", CHAT, json=ask(stream=True, **fields)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [line async for line in response.aiter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


async def test_streamed_chunks(client: httpx.AsyncClient) -> None:
    *events, done = await chunks(client)
    assert done == "[DONE]"
    choices = [event["choices"][0] for event in events]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert choices[-1]["delta"] == {}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == ANSWER
    assert not any("usage" in event for event in events)
    assert len({event["id"] for event in events}) == 1


async def test_a_usage_chunk_only_when_asked(client: httpx.AsyncClient) -> None:
    *events, usage, done = await chunks(client, stream_options={"include_usage": True})
    assert done == "[DONE]" and usage["choices"] == []
    assert [event["usage"] for event in events] == [None] * len(events)
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + usage["usage"]["completion_tokens"]


async def test_ignore_eos_and_max_tokens(client: httpx.AsyncClient, house: House) -> None:
    *_, last, usage, _ = await chunks(
        client, stream_options={"include_usage": True}, ignore_eos=True, max_tokens=40, temperature=0
    )
    assert usage["usage"]["completion_tokens"] == 40
    assert last["choices"][0]["finish_reason"] == "length"
    assert house.engine.submitted[0].stop_tokens == [] and house.engine.submitted[0].sampling.temperature == 0


async def test_a_whole_answer(client: httpx.AsyncClient, house: House) -> None:
    body = (
        await client.post(CHAT, json=ask(stop=" in the", top_k=5, top_p=0.5, seed=-3, max_completion_tokens=90))
    ).json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": ANSWER.partition(" in the")[0],
        "refusal": None,
    }
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    sampling = house.engine.submitted[0].sampling
    assert (sampling.top_k, sampling.top_p, sampling.temperature) == (5, 0.5, 1.0)
    assert house.engine.submitted[0].max_tokens == 90
    assert not house.engine.submitted[0].open_ended, "a limit that was asked for is kept or refused"
    await house.until_idle()
    assert len(house.engine.cancelled) == 1
    await client.post(CHAT, json=ask())
    assert house.engine.submitted[1].open_ended


BAD: list[tuple[object, int, str, str | None]] = [
    (b"{", 400, "invalid_json", None),
    (b"\xff", 400, "invalid_json", None),
    (b'{"model": "small", "messages": [], "temperature": 1e400}', 400, "invalid_request", "temperature"),
    (b'{"model": "small", "messages": [], "temperature": NaN}', 400, "invalid_json", None),
    (b'{"x": ' + b"[" * 100_000, 400, "invalid_json", None),
    (b" " * (1 << 20 | 1), 413, "message_too_big", None),
    ([], 400, "invalid_request", None),
    ({"messages": []}, 400, "invalid_request", None),
    (ask(model="gpt-9"), 404, "model_not_found", "model"),
    (ask(messages=[]), 400, "invalid_request", "messages"),
    (ask(messages=[{"role": "user", "content": "x"}] * 3000), 400, "invalid_request", "messages"),
    (ask(messages=[{"role": "god", "content": "x"}]), 400, "invalid_request", "messages[0].role"),
    (
        ask(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
        400,
        "unsupported_content",
        "messages[0].content[0]",
    ),
    (ask(messages=[{"role": "user", "content": "croissant " * 3000}]), 400, "context_length_exceeded", "messages"),
    (ask(tools=[{"type": "function"}]), 400, "unsupported_parameter", "tools"),
    (ask(response_format={"type": "json_object"}), 400, "unsupported_parameter", "response_format"),
    (ask(max_tokens=0), 400, "invalid_request", "max_tokens"),
    (ask(max_tokens=1, max_completion_tokens=1), 400, "invalid_request", "max_tokens"),
    (ask(temperature=2.5), 400, "invalid_request", "temperature"),
    (ask(seed=10**30), 400, "invalid_request", "seed"),
    (ask(stop=["a", "b", "c", "d", "e"]), 400, "invalid_request", "stop"),
    (ask(stream="yes"), 400, "invalid_request", "stream"),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), BAD, ids=map(str, range(len(BAD))))
async def test_bad_requests(
    client: httpx.AsyncClient, house: House, body: object, status: int, code: str, param: str | None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.post(CHAT, content=content, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["message"] and error["type"] == "invalid_request_error"
    assert response.headers["x-should-retry"] == "false"
    assert not house.engine.submitted


async def test_neutral_and_unknown_fields_are_fine(client: httpx.AsyncClient) -> None:
    fields = {
        "n": 1,
        "tools": [],
        "logprobs": False,
        "presence_penalty": 0,
        "response_format": {"type": "text"},
        "x": [1],
    }
    assert (await client.post(CHAT, json=ask(**fields))).status_code == 200


async def test_pages_of_others_cannot_call(client: httpx.AsyncClient) -> None:
    foreign = await client.post(CHAT, json=ask(), headers={"origin": "http://evil.example"})
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "origin_not_allowed")
    simple = await client.post(CHAT, content=json.dumps(ask()), headers={"content-type": "text/plain"})
    assert (simple.status_code, simple.json()["error"]["code"]) == (415, "unsupported_media_type")


async def test_disconnects_end_the_generation(house: House) -> None:
    house.never_ends()
    dice = random.Random(3)

    async def one(stream: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        body = json.dumps(ask(stream=stream)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if stream:
            await reader.readuntil(b"data: ")
        await asyncio.sleep(dice.random() * 0.05)
        writer.transport.abort()

    await asyncio.gather(*(one(stream) for stream in [True, False] * 10))
    await house.until_idle()
    assert len(house.engine.cancelled) == len(house.engine.submitted)


async def test_too_many_open_requests(client: httpx.AsyncClient, house: House) -> None:
    house.never_ends()
    house.engine.seconds_per_token = 60
    tasks = [asyncio.create_task(client.post(CHAT, json=ask())) for _ in range(50)]
    while len(house.engine.open) < 50:
        await asyncio.sleep(0.005)
    refused = await client.post(CHAT, json=ask())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_overloaded")
    assert refused.headers["retry-after"] == "1"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await house.until_idle()


async def test_the_engine_dies(client: httpx.AsyncClient, house: House) -> None:
    house.never_ends()
    assert (await client.get("/health")).status_code == 200
    whole = asyncio.create_task(client.post(CHAT, json=ask()))
    streamed = asyncio.create_task(chunks(client))
    while len(house.engine.open) < 2:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    house.engine.die()
    response = await whole
    assert (response.status_code, response.json()["error"]["code"]) == (500, "engine_error")
    assert (await streamed)[-1]["error"]["code"] == "engine_error"
    assert (await client.get("/health")).status_code == 503
    assert (await client.post(CHAT, json=ask())).status_code == 503
    await house.until_idle()


async def test_small_routes(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list" and listed["data"][0]["id"] == "small"
    assert (await client.get("/v1/models/small")).json() == listed["data"][0]
    assert (await client.get("/v1/models/org/other")).json()["error"]["code"] == "model_not_found"
    (prompt,) = (await client.get("/v1/prompts")).json()["data"]
    assert prompt["id"] == "bakery" and prompt["questions"][0]["question"] and prompt["text"] and prompt["description"]
    assert set((await client.get("/version")).json()) == {"version"}
    nothing = await client.get("/v1/nothing")
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "not_found")
    assert (await client.get(CHAT)).json()["error"]["code"] == "method_not_allowed"


async def test_metrics(client: httpx.AsyncClient) -> None:
    await client.post(CHAT, json=ask())
    text = (await client.get("/metrics")).text
    assert "banyan:time_to_first_token_seconds_count 1.0" in text
    assert 'banyan:request_success_total{finished_reason="stop"} 1.0' in text
    for name in ("num_requests_waiting", "num_preemptions_total", "prefix_cache_hits_total"):
        assert f"banyan:{name}" in text


async def test_metrics_of_the_cache(client: httpx.AsyncClient, house: House) -> None:
    house.engine.load = Load(
        prompt_tokens=700,
        cached_tokens=600,
        pages_free=900,
        pages_cached=100,
        pages_private=24,
        pages_evictable=60,
        pages_pending=10,
        pages_pinned=50,
        pages_pinned_hard=20,
        evicted_pages=9,
        evicted_for_quota=4,
        refused_for_quota=3,
        hits=TokenCounts(500, 70, 30),
        misses=TokenCounts(60, 5, 35),
    )
    lines = (await client.get("/metrics")).text.splitlines()
    shown = dict(line.removeprefix("banyan:").rsplit(" ", 1) for line in lines if line.startswith("banyan:"))
    states = {"free": 900, "private": 24, "held": 30, "pending": 10, "evictable": 60}
    assert {state: float(shown[f'kv_pages{{state="{state}"}}']) for state in states} == states
    assert sum(states.values()) == house.engine.info.pages
    assert float(shown["kv_cache_usage_perc"]) == (24 + 30 + 10) / 1024
    assert (shown['kv_pages_pinned{kind="soft"}'], shown['kv_pages_pinned{kind="hard"}']) == ("30.0", "20.0")
    for name, value in (
        ("prefix_cache_queries_total", 700),
        ("prefix_cache_hits_total", 600),
        ('prefix_cache_hit_tokens_total{class="system"}', 500),
        ('prefix_cache_hit_tokens_total{class="history"}', 70),
        ('prefix_cache_hit_tokens_total{class="shared"}', 30),
        ('prefix_cache_miss_tokens_total{class="system"}', 60),
        ('prefix_cache_miss_tokens_total{class="history"}', 5),
        ('prefix_cache_miss_tokens_total{class="shared"}', 35),
        ("evicted_pages_total", 9),
        ("evicted_pages_for_quota_total", 4),
        ("quota_refusals_total", 3),
    ):
        assert float(shown[name]) == value, name


REFUSALS = [
    ("server_overloaded", 7.2, 503, "server_overloaded", "server_error", {"retry-after": "8"}),
    ("server_overloaded", 0.0, 503, "server_overloaded", "server_error", {"retry-after": "1"}),
    ("quota_exceeded", 0.0, 429, "insufficient_quota", "insufficient_quota", {"x-should-retry": "false"}),
    (
        "context_length_exceeded",
        0.0,
        400,
        "context_length_exceeded",
        "invalid_request_error",
        {"x-should-retry": "false"},
    ),
    ("engine_error", 0.0, 500, "engine_error", "server_error", {"x-should-retry": "false"}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("engines", "after_s", "status", "code", "kind", "headers"), REFUSALS)
async def test_the_engine_refuses(
    client: httpx.AsyncClient,
    house: House,
    stream: bool,
    engines: str,
    after_s: float,
    status: int,
    code: str,
    kind: str,
    headers: dict[str, str],
) -> None:
    house.engine.refusal = Output(0, [], "error", engines, "needs 9 KV pages of 8", after_s)
    response = await client.post(CHAT, json=ask(stream=stream))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (status, code, kind)
    assert error["message"] == "needs 9 KV pages of 8"
    told = {name: value for name, value in response.headers.items() if name in ("retry-after", "x-should-retry")}
    assert told == headers
    await house.until_idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_waiting_in_vain_is_no_answer(client: httpx.AsyncClient, house: House, stream: bool) -> None:
    house.engine.refusal = Output(0, [], "deadline", message="it has not started in time")
    response = await client.post(CHAT, json=ask(stream=stream))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "server_overloaded")
    assert response.headers["retry-after"] == "1"
    await house.until_idle()


async def test_what_the_engine_is_told(client: httpx.AsyncClient, house: House) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    await client.post(CHAT, json=ask(messages=messages))
    (submit,) = house.engine.submitted
    assert submit.system_tokens == len(house.service.model.encoder.system_prefix("Be kind.")) > 0
    assert (submit.history_tokens, submit.queue_seconds, submit.seconds) == (0, 60.0, 0.0)


async def test_health_notices_a_standstill(quiet_house: House) -> None:
    service, now = quiet_house.service, 0.0
    service.clock = lambda: now
    quiet_house.engine.seconds_per_token = 1000
    assert service.healthy()
    prompt = service.model.encoder.begin([{"role": "user", "content": "x"}])
    options = service.model.check_options(Asked())
    generation = service.generate(service.model.submit(1, prompt, options), now)
    assert service.healthy()
    now = 31.0
    assert not service.healthy()
    quiet_house.engine.step("")
    assert service.healthy()
    now = 62.0
    generation.cancel()
    assert service.healthy()


def ui(house: House, folder: Path) -> Starlette:
    return create_app(house.service, folder)


LOCAL = "http://localhost"


def test_static_files(quiet_house: House, tmp_path: Path) -> None:
    unbuilt = TestClient(ui(quiet_house, tmp_path), LOCAL).get("/")
    assert unbuilt.status_code == 200 and "npm" in unbuilt.text
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<p>built")
    (tmp_path / "assets" / "a.js").write_text("1")
    client = TestClient(ui(quiet_house, tmp_path), LOCAL)
    page = client.get("/")
    assert page.text == "<p>built" and page.headers["content-security-policy"].startswith("default-src 'self'")
    assert page.headers["cache-control"] == "no-cache"
    script = client.get("/assets/a.js")
    assert "javascript" in script.headers["content-type"] and "immutable" in script.headers["cache-control"]
    for path in ("/../secret", "/%2e%2e/secret", "/assets/none.js"):
        assert client.get(path).status_code == 404
