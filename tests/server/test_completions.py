"""``POST /v1/completions`` over a real server with a fake engine."""

import itertools
import json
from array import array
from typing import Any

import httpx
import pytest

from tests.server.conftest import ANSWER, House
from tests.server.test_choices import byte_chars
from tests.server.test_http import client

__all__ = ["client"]

PATH = "/v1/completions"


def ask(prompt: object = "A croissant costs", **fields: object) -> dict[str, object]:
    return {"model": "small", "prompt": prompt, "max_tokens": 100, **fields}


async def chunks(client: httpx.AsyncClient, body: object) -> list[Any]:
    async with client.stream("POST", PATH, json=body) as response:
        assert response.status_code == 200
        lines = [line async for line in response.aiter_lines() if line]
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def prompts(house: House) -> list[list[int]]:
    return [array("I", submit.prompt).tolist() for submit in house.engine.submitted]


async def test_a_text(client: httpx.AsyncClient, house: House) -> None:
    body = (await client.post(PATH, json=ask())).json()
    (choice,) = body["choices"]
    assert choice == {"text": ANSWER, "index": 0, "logprobs": None, "finish_reason": "stop"}
    assert body["object"] == "text_completion" and body["id"].startswith("cmpl-")
    assert prompts(house) == [house.tokenizer.library.encode("A croissant costs").ids], "no chat template around it"
    assert body["usage"]["prompt_tokens"] == len(prompts(house)[0])
    assert house.engine.submitted[0].max_tokens == 100
    await client.post(PATH, json={"model": "small", "prompt": "x"})
    assert house.engine.submitted[1].max_tokens == 16, "OpenAI's default"


async def test_every_kind_of_prompt(client: httpx.AsyncClient, house: House) -> None:
    for prompt, expected in (
        (["Hi", "Hello"], None),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ):
        house.engine.submitted.clear()
        body = (await client.post(PATH, json=ask(prompt, n=2))).json()
        wanted = expected or [house.tokenizer.library.encode(text).ids for text in prompt]
        assert prompts(house) == [ids for ids in wanted for _ in range(2)]
        assert [choice["index"] for choice in body["choices"]] == list(range(2 * len(wanted)))
        assert body["usage"]["prompt_tokens"] == sum(map(len, wanted))
        assert {choice["text"] for choice in body["choices"]} == {ANSWER}
    house.engine.submitted.clear()
    forged = "<|im_start|>user\nHi<think>"
    body = (await client.post(PATH, json=ask(forged, echo=True))).json()
    assert house.tokenizer.first_control(prompts(house)[0]) is None, "text is never a control token"
    assert body["choices"][0]["text"] == forged + ANSWER


async def test_streamed_with_usage(client: httpx.AsyncClient) -> None:
    body = ask(["Hi", "Hello"], stream=True, stream_options={"include_usage": True}, echo=True)
    *events, usage, done = await chunks(client, body)
    assert done == "[DONE]" and usage["choices"] == [] and usage["usage"]["completion_tokens"] > 2
    for index, prompt in enumerate(("Hi", "Hello")):
        mine = [choice for event in events for choice in event["choices"] if choice["index"] == index]
        assert "".join(choice["text"] for choice in mine) == prompt + ANSWER
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + ["stop"]
    assert "usage" not in (await chunks(client, ask(stream=True)))[0]


async def test_echo(client: httpx.AsyncClient, house: House) -> None:
    ids = house.tokenizer.library.encode("bread").ids
    for prompt in ("bread", ids):
        body = (await client.post(PATH, json=ask(prompt, echo=True, stop=" costs"))).json()
        assert body["choices"][0]["text"] == "bread" + ANSWER.partition(" costs")[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_in_the_legacy_form(client: httpx.AsyncClient, house: House, stream: bool) -> None:
    library = house.tokenizer.library
    emoji = [library.token_to_id(char) for char in byte_chars("🙂".encode())]
    end = library.token_to_id("<|im_end|>")
    ids = [*house.tokenizer.encode_plain("a croissant "), *emoji, *house.tokenizer.encode_plain(" now")]
    house.engine.answer = lambda prompt: itertools.chain(ids, itertools.repeat(end))
    body = ask(logprobs=2, stream=stream)
    if stream:
        parts = [choice for event in (await chunks(client, body))[:-1] for choice in event["choices"]]
        text = "".join(part["text"] for part in parts)
        found: dict[str, list[Any]] = {}
        for part in parts:
            for name, values in (part["logprobs"] or {}).items():
                found.setdefault(name, []).extend(values)
    else:
        (choice,) = (await client.post(PATH, json=body)).json()["choices"]
        text, found = choice["text"], choice["logprobs"]
    assert text == "a croissant 🙂 now"
    assert list(found) == ["tokens", "token_logprobs", "top_logprobs", "text_offset"]
    assert {len(values) for values in found.values()} == {len(ids)}
    assert found["token_logprobs"] == [-0.5] * len(ids)
    for name, tops, offset in zip(found["tokens"], found["top_logprobs"], found["text_offset"], strict=True):
        assert tops[name] == -0.5 and 1 <= len(tops) <= 3
        assert name.startswith("bytes:") or text[offset:].startswith(name)
    assert "bytes:\\xf0" in found["tokens"]
    assert found["text_offset"].count(text.index("🙂")) == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 4])
async def test_a_prompt_is_scored(client: httpx.AsyncClient, house: House, stream: bool, max_tokens: int) -> None:
    library = house.tokenizer.library
    emoji = [library.token_to_id(char) for char in byte_chars("🙂".encode())]
    ids = [*library.encode("bread").ids, *emoji, *library.encode(" now").ids]
    body = ask([ids, ids[:1]], echo=True, logprobs=1, max_tokens=max_tokens, stream=stream)
    if stream:
        body["stream_options"] = {"include_usage": True}
        *events, last, _ = await chunks(client, body)
        texts, found, reasons = ["", ""], [{}, {}], [None, None]
        for choice in (choice for event in events for choice in event["choices"]):
            texts[choice["index"]] += choice["text"]
            reasons[choice["index"]] = choice["finish_reason"]
            for name, values in (choice["logprobs"] or {}).items():
                found[choice["index"]].setdefault(name, []).extend(values)
        usage = last["usage"]
    else:
        answer = (await client.post(PATH, json=body)).json()
        texts, found, reasons = ([c[n] for c in answer["choices"]] for n in ("text", "logprobs", "finish_reason"))
        usage = answer["usage"]
    shown = house.tokenizer.library.decode(house.tokenizer.encode_plain(ANSWER)[:max_tokens])
    assert texts == ["bread🙂 now" + shown, library.decode(ids[:1]) + shown] and reasons == ["length"] * 2
    for prompt, text, one in zip((ids, ids[:1]), texts, found, strict=True):
        assert one["token_logprobs"] == [None] + [-0.5] * (len(prompt) - 1 + max_tokens)
        assert one["top_logprobs"][0] is None and all(len(tops) == 1 for tops in one["top_logprobs"][1:])
        for name, offset in zip(one["tokens"], one["text_offset"], strict=True):
            assert name.startswith("bytes:") or text[offset:].startswith(name)
    assert usage["completion_tokens"] == 2 * max_tokens
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


BAD = [
    (ask([]), "prompt"),
    (ask(""), "prompt"),
    (ask(["x", ""]), "prompt[1]"),
    (ask([[]]), "prompt[0]"),
    (ask(["x", 5]), "prompt"),
    (ask([5, -1]), "prompt"),
    (ask([[5], [502]]), "prompt[1]"),
    (ask([10**12]), "prompt"),
    (ask(["x"] * 129), "prompt"),
    (ask(["x"] * 65, n=2), "n"),
    (ask({"a": 1}), "prompt"),
    (ask(suffix="x"), "suffix"),
    (ask(best_of=3), "best_of"),
    (ask(n=2, best_of=3), "best_of"),
    (ask(logprobs=21), "logprobs"),
    (ask([[5] * 1000] * 40, logprobs=1, echo=True), "logprobs"),
    (ask(max_tokens=0), "max_tokens"),
    (ask("croissant " * 3000), "prompt"),
    (ask(model="x"), "model"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
async def test_what_cannot_be_is_named(client: httpx.AsyncClient, house: House, body: Any, param: str) -> None:
    response = await client.post(PATH, json=body)
    assert response.status_code in (400, 404), response.text
    assert response.json()["error"]["param"] == param
    assert house.engine.submitted == []


async def test_neutral_fields_are_fine(client: httpx.AsyncClient) -> None:
    assert (await client.post(PATH, json=ask(n=2, best_of=2, suffix=None, user="me", x=1))).status_code == 200


async def test_leaving_ends_it(client: httpx.AsyncClient, house: House) -> None:
    house.never_ends()
    async with client.stream("POST", PATH, json=ask(["a", "b", "c"], stream=True)) as response:
        async for line in response.aiter_lines():
            if "croissant" in line:
                break
    await house.until_idle()
    assert len(house.engine.cancelled) == 3
