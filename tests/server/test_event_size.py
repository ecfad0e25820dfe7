"""No event on a socket is larger than clients take, and what is kept of log-probabilities is counted."""

import json

import httpx
from websockets.asyncio.client import connect

from tests.server.conftest import House

TOKENS, MOST = 800, 1 << 20
ASKED = {"input": "Hi", "max_output_tokens": TOKENS, "top_logprobs": 20, "temperature": 0}


def whole(response: dict) -> dict:
    return response["output"][0]["content"][0]


async def test_log_probabilities_of_a_long_answer_are_in_its_deltas(house: House) -> None:
    house.never_ends()
    house.engine.seconds_per_token = 0.0
    told, sizes = 0, []
    async with connect(house.socket, subprotocols=["banyan.v1"], max_size=MOST, compression=None) as socket:  # type: ignore[list-item]
        await socket.send(json.dumps({"type": "response.create", **ASKED}))
        async for message in socket:
            sizes.append(len(message))
            event = json.loads(message)
            told += len(event["logprobs"]) if event["type"] == "response.output_text.delta" else 0
            if event["type"] in ("response.completed", "response.incomplete", "error", "response.failed"):
                break
    assert event["type"] == "response.incomplete" and told == TOKENS
    text = whole(event["response"])
    assert text["logprobs"] == [] and text["text"] == " croissant" * TOKENS
    assert max(sizes) < MOST and sum(sizes) > MOST  # there was enough to say
    responses = house.app.state.conductor.responses
    assert MOST / 2 < responses.kept_bytes < 2 * MOST
    assert [kept._reply for kept in responses._by_id.values()] == [None]  # which has them all as well
    async with httpx.AsyncClient(base_url=house.http, timeout=60) as client:  # where a body may be of any size
        answer = (await client.post("/v1/responses", json=ASKED)).json()
    assert len(whole(answer)["logprobs"]) == TOKENS


async def test_of_a_short_answer_they_are_said_again_at_its_end(house: House) -> None:
    async with connect(house.socket) as socket:
        await socket.send(json.dumps({"type": "response.create", **ASKED, "max_output_tokens": 4}))
        while (event := json.loads(await socket.recv()))["type"] != "response.incomplete":
            pass
    assert len(whole(event["response"])["logprobs"]) == 4


async def test_nothing_is_compressed(house: House) -> None:
    """The size of a compressed frame would tell what is in it, and each connection would cost tens of KiB."""
    async with connect(house.socket, compression="deflate") as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" in (socket.request.headers if socket.request else {})
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
