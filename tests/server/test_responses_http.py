"""``POST /v1/responses``: JSON and server-sent events, the same as on a socket; what is stored, and what is refused."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from backend.engine.messages import Output
from tests.server.conftest import ANSWER, House

Body = dict[str, Any]


async def post(house: House, body: object, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=house.http, timeout=20) as client:
        return await client.post("/v1/responses", json=body, **options)


def events_of(answer: httpx.Response) -> list[Body]:
    frames = [frame.split("\n") for frame in answer.text.split("\n\n") if frame]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name.removeprefix("event: ") for name, _ in frames] == [event["type"] for event in events]
    return events


async def test_whole(house: House) -> None:
    answer = await post(house, {"model": "small", "input": "Hi", "instructions": "Be kind.", "metadata": {"a": "b"}})
    response = answer.json()
    assert answer.status_code == 200 and response["status"] == "completed" and response["store"] is True
    assert response["output"][0]["content"][0]["text"] == ANSWER
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 0
    assert response["metadata"] == {"a": "b"}
    await house.until_idle()


async def test_server_sent_events_are_those_of_the_socket(house: House) -> None:
    events = events_of(await post(house, {"input": "Hi", "stream": True}))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-1] == "response.completed" and not any(kind.startswith("x.") for kind in kinds)
    assert "".join(event["delta"] for event in events if event["type"].endswith(".delta")) == ANSWER


async def test_turns_are_chained_by_what_is_stored(house: House) -> None:
    first = (await post(house, {"input": "Hi"})).json()
    second = (await post(house, {"input": "And bread?", "previous_response_id": first["id"]})).json()
    assert second["previous_response_id"] == first["id"]
    one, two = (submit.prompt for submit in house.engine.submitted)
    assert two.startswith(one) and len(two) > len(one)
    # also when nothing is at hand any more but the store
    house.app.state.conductor.responses.forget("local", second["id"])
    await post(house, {"input": "And cake?", "previous_response_id": second["id"]})
    assert house.engine.submitted[-1].prompt.startswith(two)


async def test_what_is_not_stored_cannot_be_got(house: House) -> None:
    kept = (await post(house, {"input": "Hi"})).json()
    gone = (await post(house, {"input": "Hi", "store": False})).json()
    assert gone["store"] is False
    async with httpx.AsyncClient(base_url=house.http) as client:
        assert (await client.get(f"/v1/responses/{kept['id']}")).json()["output"] == kept["output"]
        assert (await client.get(f"/v1/responses/{gone['id']}")).json()["error"]["code"] == "response_not_found"
        deleted = await client.delete(f"/v1/responses/{kept['id']}")
        assert deleted.json() == {"id": kept["id"], "object": "response", "deleted": True}
        for method in ("GET", "DELETE"):
            assert (await client.request(method, f"/v1/responses/{kept['id']}")).status_code == 404
    refused = await post(house, {"input": "Hi", "previous_response_id": kept["id"]})
    assert refused.json()["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"input": "Hi", "model": "gpt-9"}, 404, "model_not_found"),
        ({"input": "croissant " * 3000}, 400, "context_length_exceeded"),
        ({"input": "Hi", "tools": [{}]}, 400, "unsupported_parameter"),
        ({"input": "Hi", "stream_id": "a"}, 400, "invalid_request"),
        ({"input": "Hi", "previous_response_id": "resp_x"}, 400, "previous_response_not_found"),
        ({"type": "x.ping"}, 400, "invalid_request"),
    ],
)
async def test_refusals_have_a_status(house: House, body: Body, status: int, code: str, stream: bool) -> None:
    answer = await post(house, body | {"stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    await house.until_idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_engines_refusal_has_a_status(house: House, stream: bool) -> None:
    house.engine.refusal = Output(0, [], "error", "server_overloaded", "1 request is waiting already", 3.2)
    answer = await post(house, {"input": "Hi", "stream": stream})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "4")
    assert answer.json()["error"]["code"] == "server_overloaded"


@pytest.mark.parametrize("stream", [False, True])
async def test_who_goes_away_ends_it(house: House, stream: bool) -> None:
    house.never_ends()
    house.engine.seconds_per_token = 60.0
    asking = asyncio.create_task(post(house, {"input": "Hi", "stream": stream}))
    async with asyncio.timeout(20):
        while not house.engine.open:
            await asyncio.sleep(0.005)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await house.until_idle()
    assert len(house.engine.cancelled) == 1


async def test_a_failure_within_a_stream_is_its_last_event(house: House) -> None:
    house.never_ends()
    async with (
        httpx.AsyncClient(base_url=house.http) as client,
        client.stream("POST", "/v1/responses", json={"input": "Hi", "stream": True}) as answer,
    ):
        lines = answer.aiter_lines()
        async for line in lines:
            if "delta" in line:
                house.engine.die()
                break
        rest = [line async for line in lines if line.startswith("data: ")]
    assert json.loads(rest[-1].removeprefix("data: "))["type"] == "response.failed"


async def test_a_store_that_fails_does_not_fail_the_answer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(house.app.state.conductor.responses.store, "save", full)
    response = (await post(house, {"input": "Hi"})).json()
    assert response["status"] == "completed" and response["store"] is False


async def test_warming_and_variables(house: House) -> None:
    warm = (await post(house, {"instructions": "Be kind.", "generate": False})).json()
    assert warm["status"] == "completed" and warm["output"] == []
    await post(house, {"input": "Hi", "previous_response_id": warm["id"]})
    shown = house.tokenizer.library.decode(memoryview(house.engine.submitted[-1].prompt).cast("I").tolist())
    assert "Be kind." in shown and "Hi" in shown
