"""OpenAI's own client, unmodified, against the server."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from backend.engine.messages import Output
from tests.server.conftest import ANSWER, House


@pytest.fixture
async def client(house: House) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{house.http}/v1", api_key="x", max_retries=0) as client:
        yield client


async def test_responses_over_a_websocket(client: AsyncOpenAI, house: House) -> None:
    async with client.responses.connect() as connection:
        await connection.response.create(model="small", input="Hi", instructions="Be kind.")
        text, done = "", None
        async for event in connection:
            if event.type == "response.output_text.delta":
                text += event.delta
            if event.type == "response.completed":
                done = event.response
                break
        assert done is not None and text == ANSWER == done.output_text
        assert done.usage is not None and done.usage.input_tokens_details.cached_tokens == 0
        await connection.response.create(model="small", input="And bread?", previous_response_id=done.id)
        async for event in connection:
            if event.type == "response.completed":
                break
        assert event.response.previous_response_id == done.id
        assert event.response.usage is not None and event.response.usage.input_tokens_details.cached_tokens > 0
        first, second = (submit.prompt for submit in house.engine.submitted)
        assert second.startswith(first)


async def test_cancel_and_errors_over_a_websocket(client: AsyncOpenAI, house: House) -> None:
    house.never_ends()
    async with client.responses.connect() as connection:
        await connection.response.create(model="another", input="Hi")
        error = await connection.recv()
        assert error.type == "error" and error.error.code == "model_not_found"
        await connection.response.create(model="small", input="Hi")
        created = await connection.recv()
        assert created.type == "response.created"
        await connection.send({"type": "response.cancel", "response_id": created.response.id})  # type: ignore[arg-type]
        async for event in connection:
            if event.type == "response.incomplete":
                break
        assert event.response.incomplete_details is not None
    await house.until_idle()


async def test_lanes_over_a_websocket(client: AsyncOpenAI) -> None:
    async with client.responses.connect() as connection:
        await connection.response.create(model="small", input="Hi", stream_id="a")
        await connection.response.create(model="small", input="Hi", stream_id="b")
        ended = set()
        async for event in connection:
            if event.type == "response.completed":
                ended.add(getattr(event, "stream_id", None))
            if len(ended) == 2:
                break
        assert ended == {"a", "b"}


async def test_chat_completions(client: AsyncOpenAI) -> None:
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    whole = await client.chat.completions.create(model="small", messages=messages, temperature=0)  # type: ignore[call-overload]
    assert whole.choices[0].message.content == ANSWER and whole.choices[0].finish_reason == "stop"
    assert whole.usage.prompt_tokens_details.cached_tokens == 0
    stream = await client.chat.completions.create(  # type: ignore[call-overload]
        model="small", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    seen = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in seen if chunk.choices) == ANSWER
    assert seen[-1].usage is not None and seen[-1].usage.prompt_tokens_details.cached_tokens >= 0


async def test_errors_have_their_types(client: AsyncOpenAI, house: House) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="another", messages=messages)  # type: ignore[arg-type]
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as many:
        await client.chat.completions.create(model="small", messages=messages, n=300)  # type: ignore[arg-type]
    assert (many.value.code, many.value.param) == ("invalid_request", "n")
    house.never_ends()
    stream = await client.chat.completions.create(model="small", messages=messages, stream=True)  # type: ignore[arg-type]
    with pytest.raises(openai.APIError):
        async for number, _ in _count(stream):
            if number == 3:
                house.engine.die()


async def test_a_quota_is_not_asked_again_and_a_busy_server_is(client: AsyncOpenAI, house: House) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    patient = client.with_options(max_retries=2)
    house.engine.refusal = Output(0, [], "error", "quota_exceeded", "tenant 'local' may have 8 KV pages")
    with pytest.raises(openai.RateLimitError) as quota:
        await patient.chat.completions.create(model="small", messages=messages)  # type: ignore[arg-type]
    assert (quota.value.code, quota.value.type) == ("insufficient_quota", "insufficient_quota")
    assert len(house.engine.submitted) == 1
    house.engine.refusal = Output(0, [], "error", "server_overloaded", "1 request is waiting already", 0.4)
    asked = asyncio.create_task(patient.chat.completions.create(model="small", messages=messages))  # type: ignore[arg-type]
    while len(house.engine.submitted) < 2 or house.engine.open:  # until it has been refused once
        await asyncio.sleep(0.005)
    house.engine.refusal = None
    assert (await asked).choices[0].message.content == ANSWER
    assert len(house.engine.submitted) == 3


async def test_a_refusal_over_a_websocket(client: AsyncOpenAI, house: House) -> None:
    house.engine.refusal = Output(0, [], "error", "server_overloaded", "3 requests are waiting already", 4.0)
    async with client.responses.connect() as connection:
        await connection.response.create(model="small", input="Hi")
        async for event in connection:
            if event.type == "response.failed":
                break
        assert event.response.error is not None and event.response.error.code == "server_overloaded"
        assert event.response.error.x_retry_after_s == 4.0  # type: ignore[attr-defined]


async def test_leaving_a_stream_ends_it(client: AsyncOpenAI, house: House) -> None:
    house.never_ends()
    messages = [{"role": "user", "content": "Hi"}]
    async with await client.chat.completions.create(model="small", messages=messages, stream=True) as stream:  # type: ignore[arg-type]
        async for number, _ in _count(stream):
            if number == 5:
                break
    await house.until_idle()
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.3).chat.completions.create(model="small", messages=messages)  # type: ignore[arg-type]
    await house.until_idle()


async def test_models(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["small"]
    assert (await client.models.retrieve("small")).id == "small"


async def _count(stream: AsyncIterator[object]) -> AsyncIterator[tuple[int, object]]:
    number = 0
    async for item in stream:
        number += 1
        yield number, item
        await asyncio.sleep(0)
