"""Several answers at once, and log-probabilities of what was shown, over a real server with a fake engine."""

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.engine.messages import Output
from backend.server.limits import Limits
from backend.server.sampling import Asked, Defaults, check_options
from tests.server.conftest import ANSWER, House
from tests.server.fake_engine import fake_logprobs
from tests.server.test_http import CHAT, ask, chunks, client

__all__ = ["client"]


def content(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return choice["logprobs"]["content"]


def joined(entries: list[dict[str, Any]]) -> str:
    return b"".join(bytes(entry["bytes"]) for entry in entries).decode()


async def test_every_setting_reaches_the_engine(client: httpx.AsyncClient, house: House) -> None:
    fields = {
        "min_p": 0.1,
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "repetition_penalty": 1.3,
        "logit_bias": {"7": 5, "8": -100},
        "logprobs": True,
        "top_logprobs": 20,
    }
    assert (await client.post(CHAT, json=ask(**fields))).status_code == 200
    sampling = house.engine.submitted[0].sampling
    assert (sampling.min_p, sampling.presence_penalty, sampling.frequency_penalty) == (0.1, -2.0, 2.0)
    assert (sampling.repetition_penalty, sampling.logit_bias) == (1.3, {7: 5.0, 8: -100.0})
    assert sampling.logprobs == 20
    await client.post(CHAT, json=ask())
    assert not house.engine.submitted[1].sampling.penalises and house.engine.submitted[1].sampling.logprobs is None


BAD = [
    ({"min_p": 1.5}, "min_p"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -2.1}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"502": 1}}, "logit_bias"),
    ({"logit_bias": {"\u0663": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": {str(i): 1 for i in range(2000)}}, "logit_bias"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
async def test_what_is_out_of_range_is_named(client: httpx.AsyncClient, house: House, fields: Any, param: str) -> None:
    response = await client.post(CHAT, json=ask(**fields))
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param and param in response.json()["error"]["message"]
    assert house.engine.submitted == []


async def test_n_answers_with_seeds_of_their_own(client: httpx.AsyncClient, house: House) -> None:
    body = (await client.post(CHAT, json=ask(n=3, seed=5, stop=" in the"))).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in body["choices"]} == {ANSWER.partition(" in the")[0]}
    first, *others = house.engine.submitted
    assert first.sampling.seed == 5 and len({submit.sampling.seed for submit in house.engine.submitted}) == 3
    assert all(submit.prompt == first.prompt for submit in others)
    usage = body["usage"]
    assert usage["prompt_tokens"] == len(first.prompt) // 4
    assert usage["completion_tokens"] % 3 == 0 and usage["completion_tokens"] > 3
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0, "the others found what the first computed"
    again = (await client.post(CHAT, json=ask(n=3, seed=5))).json()
    assert len(again["choices"]) == 3
    assert [s.sampling.seed for s in house.engine.submitted[3:]] == [
        s.sampling.seed for s in house.engine.submitted[:3]
    ]
    await house.until_idle()


async def test_n_answers_streamed(client: httpx.AsyncClient) -> None:
    *events, usage, done = await chunks(client, n=4, stream_options={"include_usage": True})
    assert done == "[DONE]" and usage["choices"] == [] and usage["usage"]["completion_tokens"] > 0
    for index in range(4):
        mine = [c for event in events for c in event["choices"] if c["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content", "") for c in mine) == ANSWER
        assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["stop"]


async def test_leaving_ends_all_n(client: httpx.AsyncClient, house: House) -> None:
    house.never_ends()
    async with client.stream("POST", CHAT, json=ask(n=5, stream=True)) as response:
        async for line in response.aiter_lines():
            if "croissant" in line:
                break
        assert len(house.engine.open) == 5
    await house.until_idle()
    asked = asyncio.create_task(client.post(CHAT, json=ask(n=5)))
    while len(house.engine.open) < 5:
        await asyncio.sleep(0.005)
    asked.cancel()
    await house.until_idle()
    assert len(house.engine.cancelled) == 10


async def test_one_that_has_met_its_stop_string_is_over(client: httpx.AsyncClient, house: House) -> None:
    """Its row is free while the other goes on."""
    word = house.tokenizer.encode_plain(" croissant")
    answers = iter([house.tokenizer.encode_plain("so: STOP and more"), []])
    house.engine.seconds_per_token = 0.001
    house.engine.answer = lambda prompt: itertools.chain(next(answers), itertools.cycle(word))
    async with client.stream("POST", CHAT, json=ask(n=2, stream=True, stop="STOP")) as response:
        async for line in response.aiter_lines():
            if '"finish_reason":"stop"' in line:
                break
        assert len(house.engine.cancelled) == 1 and len(house.engine.open) == 1
    await house.until_idle()


async def test_one_that_fails_ends_all(client: httpx.AsyncClient, house: House) -> None:
    house.never_ends()
    asked = asyncio.create_task(client.post(CHAT, json=ask(n=3)))
    while len(house.engine.open) < 3:
        await asyncio.sleep(0.005)
    list(house.engine.open.values())[1].die()
    assert (await asked).status_code == 500
    await house.until_idle()


async def test_more_than_the_server_takes_leaves_none_open(client: httpx.AsyncClient, house: House) -> None:
    house.never_ends()
    waiting = [asyncio.create_task(client.post(CHAT, json=ask(n=16))) for _ in range(3)]
    while len(house.engine.open) < 48:
        await asyncio.sleep(0.005)
    refused = await client.post(CHAT, json=ask(n=16))  # two more would go
    assert refused.status_code == 503 and len(house.engine.open) == 48
    for task in waiting:
        task.cancel()
    await house.until_idle()


async def test_logprobs_of_what_is_shown(client: httpx.AsyncClient, house: House) -> None:
    body = (await client.post(CHAT, json=ask(logprobs=True, top_logprobs=3))).json()
    (choice,) = body["choices"]
    assert joined(content(choice)) == ANSWER, "and nothing of the end of the turn"
    assert len(content(choice)) == body["usage"]["completion_tokens"] - 1
    assert all(entry["logprob"] == -0.5 and len(entry["top_logprobs"]) == 3 for entry in content(choice))
    plain = (await client.post(CHAT, json=ask(logprobs=True))).json()["choices"][0]
    assert all(entry["top_logprobs"] == [] for entry in content(plain))
    assert (await client.post(CHAT, json=ask())).json()["choices"][0]["logprobs"] is None


async def test_logprobs_streamed(client: httpx.AsyncClient) -> None:
    *events, done = await chunks(client, logprobs=True, top_logprobs=1)
    assert done == "[DONE]"
    shown = ""
    entries = []
    for event in events:
        (choice,) = event["choices"]
        if not choice["delta"].get("content"):
            assert choice["logprobs"] is None
            continue
        shown += choice["delta"]["content"]
        entries += content(choice)
        assert joined(entries) == shown
    assert shown == ANSWER


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_end_with_a_stop_string(client: httpx.AsyncClient, house: House, stream: bool) -> None:
    """Also one that begins within a token: that token is the last."""
    stop = "sts three"
    if stream:
        *events, _ = await chunks(client, logprobs=True, stop=stop)
        entries = [e for event in events for c in event["choices"] if c["logprobs"] for e in content(c)]
    else:
        entries = content((await client.post(CHAT, json=ask(logprobs=True, stop=stop))).json()["choices"][0])
    before = ANSWER.partition(stop)[0]
    text = joined(entries)
    assert text.startswith(before) and len(joined(entries[:-1])) < len(before)


async def test_logprobs_of_text_that_was_held_back_for_another_stop_string(client: httpx.AsyncClient) -> None:
    """Several tokens are shown at once then, and the one that begins the stop string is not among them."""
    body = (await client.post(CHAT, json=ask(logprobs=True, stop=["croissant costs four", " three"]))).json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == "A croissant costs" == joined(content(choice))


def test_logprobs_of_tokens_that_come_together(quiet_house: House) -> None:
    """An incomplete character and the end of the turn, in one message with text."""
    library = quiet_house.tokenizer.library
    ids = quiet_house.tokenizer.encode_plain("yes")
    tokens = [*ids, library.token_to_id(byte_chars(b"\xf0")[0]), library.token_to_id("<|im_end|>")]
    model = quiet_house.service.model
    reply = model.reply(5, model.check_options(Asked(logprobs=0)), 0.0)
    logprobs = tuple(fake_logprobs(token, 0) for token in tokens)
    assert reply.output(Output(1, tokens, "stop", logprobs=logprobs), 0.0) == "yes"
    assert [shown.token for shown in reply.logprobs] == ids


@pytest.mark.parametrize("tail", [b"\xf0\x9f", b"\xf0\x9f\x99"])
async def test_an_incomplete_character_has_no_logprobs(client: httpx.AsyncClient, house: House, tail: bytes) -> None:
    library = house.tokenizer.library
    ids = house.tokenizer.encode_plain("yes ")
    byte_ids = [library.token_to_id(char) for char in byte_chars(tail)]
    assert None not in byte_ids
    end = library.token_to_id("<|im_end|>")
    house.engine.answer = lambda prompt: itertools.chain(ids, byte_ids, itertools.repeat(end))
    body = (await client.post(CHAT, json=ask(logprobs=True))).json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == "yes "
    assert joined(content(choice)) == "yes "
    rest = [library.token_to_id(char) for char in byte_chars("🙂".encode()[len(tail) :])]
    house.engine.answer = lambda prompt: itertools.chain(ids, byte_ids, rest, itertools.repeat(end))
    (choice,) = (await client.post(CHAT, json=ask(logprobs=True, top_logprobs=1))).json()["choices"]
    assert choice["message"]["content"] == "yes 🙂" == joined(content(choice))
    assert [entry["token"] for entry in content(choice)[-4:]] == ["\\xf0", "\\x9f", "\\x99", "\\x82"]


def byte_chars(data: bytes) -> list[str]:
    """GPT-2's stand-ins for these bytes, all of which are above 0x7e and invisible or Latin-1 letters."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(b) if b in visible else chr(256 + hidden.index(b)) for b in data]


async def test_control_tokens_have_names(client: httpx.AsyncClient, house: House) -> None:
    end = house.tokenizer.library.token_to_id("<|im_end|>")
    ids = house.tokenizer.encode_plain("ab")
    house.engine.answer = lambda prompt: itertools.chain(ids, [end], ids, itertools.repeat(end))
    body = (await client.post(CHAT, json=ask(logprobs=True, ignore_eos=True, max_tokens=2 * len(ids) + 1))).json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == "abab"
    assert [entry["token"] for entry in content(choice)][len(ids)] == "<|im_end|>"


async def test_refusals_of_n_answers_are_refusals(client: httpx.AsyncClient, house: House) -> None:
    house.engine.refusal = Output(0, [], "error", "quota_exceeded", "tenant 'local' may have 8 KV pages")
    response = await client.post(CHAT, json=ask(n=2))
    assert response.status_code == 429 and json.loads(response.text)["error"]["code"] == "insufficient_quota"
    await house.until_idle()


def test_what_the_checkpoint_recommends(tmp_path: Path) -> None:
    recommended = {"temperature": 0.6, "top_p": 0.8, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05}
    (tmp_path / "generation_config.json").write_text(json.dumps(recommended))
    defaults = Defaults.load(tmp_path)
    assert defaults == Defaults(**recommended)
    silent = check_options(Asked(), defaults, Limits(), lambda: 1, 100).sampling
    assert (silent.min_p, silent.repetition_penalty) == (0.1, 1.05)
    asked = check_options(Asked(min_p=0.0, repetition_penalty=1.0), defaults, Limits(), lambda: 1, 100).sampling
    assert (asked.min_p, asked.penalises) == (0.0, False)
    greedy = {"do_sample": False, "repetition_penalty": 1.1, "min_p": "much"}
    (tmp_path / "generation_config.json").write_text(json.dumps(greedy))
    assert Defaults.load(tmp_path) == Defaults(temperature=0.0, repetition_penalty=1.1)


def test_choices_have_seeds_apart(quiet_house: House) -> None:
    options = quiet_house.service.model.check_options(Asked(seed=1, n=16))
    others = quiet_house.service.model.check_options(Asked(seed=2, n=16))
    seeds = {o.choice(index).sampling.seed for o in (options, others) for index in range(16)}
    assert len(seeds) == 32 and all(0 <= seed < 1 << 63 for seed in seeds)
