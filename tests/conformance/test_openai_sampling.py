"""OpenAI's Python client, unmodified, against the server with the bundled model: settings of sampling, several answers,
log-probabilities, completions."""

import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from tokenizers import Tokenizer

import backend
from tests.conformance.conftest import Served

MODEL = Path(backend.__file__).parent / "demo" / "model"


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(served: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
        yield client


def messages(served: Served) -> Any:
    return [{"role": "system", "content": served.system}, {"role": "user", "content": served.question}]


def text_of(entries: Any) -> str:
    return b"".join(bytes(entry.bytes) for entry in entries).decode()


def test_n_answers(client: OpenAI, served: Served) -> None:
    hot = {"model": served.model, "messages": messages(served), "n": 8, "temperature": 2.0, "seed": 11}
    one = client.chat.completions.create(**hot, max_tokens=20)
    texts = [choice.message.content for choice in one.choices]
    assert [choice.index for choice in one.choices] == list(range(8)) and len(set(texts)) > 1
    assert one.usage is not None
    again = client.chat.completions.create(**hot, max_tokens=20)
    assert [choice.message.content for choice in again.choices] == texts
    alone = client.chat.completions.create(**{**hot, "n": 1}, max_tokens=20)
    assert alone.choices[0].message.content == texts[0]
    assert alone.usage is not None and alone.usage.prompt_tokens == one.usage.prompt_tokens
    streamed = [""] * 8
    for chunk in client.chat.completions.create(**hot, max_tokens=20, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_logprobs(client: OpenAI, served: Served) -> None:
    fields: Any = {"model": served.model, "messages": messages(served), "temperature": 0, "top_logprobs": 3}
    whole = client.chat.completions.create(**fields, logprobs=True)
    assert whole.choices[0].message.content == served.answer
    assert whole.choices[0].logprobs is not None and whole.choices[0].logprobs.content is not None
    entries = whole.choices[0].logprobs.content
    assert text_of(entries) == served.answer
    for entry in entries:
        assert entry.top_logprobs[0].token == entry.token, "greedy"
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob, abs=1e-5)
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1.0001
    streamed: list[Any] = []
    for chunk in client.chat.completions.create(**fields, logprobs=True, stream=True):
        found = chunk.choices[0].logprobs
        streamed += (found.content or []) if found is not None else []
    assert text_of(streamed) == served.answer and len(streamed) == len(entries)
    cut = client.chat.completions.create(**fields, logprobs=True, stop=[served.answer[8:14]])
    assert cut.choices[0].message.content == served.answer[:8]
    assert cut.choices[0].logprobs is not None and cut.choices[0].logprobs.content is not None
    assert text_of(cut.choices[0].logprobs.content).startswith(served.answer[:8])
    assert text_of(cut.choices[0].logprobs.content[:-1]) != text_of(cut.choices[0].logprobs.content)


def test_biases_and_penalties_change_the_answer(client: OpenAI, served: Served) -> None:
    fields: Any = {"model": served.model, "messages": messages(served), "temperature": 0, "max_tokens": 12}
    plain = client.chat.completions.create(**fields, logprobs=True)
    assert plain.choices[0].logprobs is not None and plain.choices[0].logprobs.content is not None
    first = plain.choices[0].logprobs.content[0].token
    (token,) = Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(first, add_special_tokens=False).ids
    other = client.chat.completions.create(**fields, logit_bias={str(token): -100})
    assert not (other.choices[0].message.content or "").startswith(first)
    assert (plain.choices[0].message.content or "").startswith(first)
    looped = client.chat.completions.create(**{**fields, "max_tokens": 40}, extra_body={"ignore_eos": True})
    varied = client.chat.completions.create(
        **{**fields, "max_tokens": 40}, frequency_penalty=2, presence_penalty=2, extra_body={"ignore_eos": True}
    )
    assert varied.choices[0].message.content != looped.choices[0].message.content
    for more in ({"min_p": 0.5}, {"repetition_penalty": 1.5}):
        assert client.chat.completions.create(**fields, extra_body=more).choices[0].message.content


def test_what_is_out_of_range(client: OpenAI, served: Served) -> None:
    for fields in (
        {"n": 17},
        {"logprobs": True, "top_logprobs": 21},
        {"presence_penalty": 3},
        {"logit_bias": {"x": 1}},
    ):
        with pytest.raises(BadRequestError) as refused:
            client.chat.completions.create(model=served.model, messages=messages(served), extra_body=fields)
        assert refused.value.param == list(fields)[-1]


def test_completions(client: OpenAI, served: Served) -> None:
    two = client.completions.create(
        model=served.model, prompt=["The bread", "The cake"], n=2, max_tokens=5, temperature=0, echo=True, logprobs=None
    )
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]
    assert two.choices[0].text == two.choices[1].text and two.choices[0].text.startswith("The bread")
    assert two.choices[2].text.startswith("The cake") and two.usage is not None
    assert two.usage.completion_tokens <= 20
    one = client.completions.create(model=served.model, prompt="The bread", max_tokens=5, temperature=0, logprobs=2)
    assert "The bread" + one.choices[0].text == two.choices[0].text
    found = one.choices[0].logprobs
    assert found is not None and found.tokens is not None and found.top_logprobs is not None
    assert "".join(found.tokens) == one.choices[0].text and found.text_offset is not None
    assert found.text_offset[0] == 0 and all(len(tops) in (2, 3) for tops in found.top_logprobs)
    stream = client.completions.create(
        model=served.model,
        prompt="The bread",
        max_tokens=5,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    seen = list(stream)
    assert "".join(choice.text for chunk in seen for choice in chunk.choices) == one.choices[0].text
    assert seen[-1].usage == one.usage or seen[-1].usage is not None
    with pytest.raises(BadRequestError) as refused:
        client.completions.create(model=served.model, prompt="x", suffix="y")
    assert refused.value.param == "suffix"


def test_a_prompt_is_scored_as_its_own_answer_was(client: OpenAI, served: Served) -> None:
    """What was drawn with some log-probability has the same one as a prompt, cached or not; as an evaluation harness
    asks for it."""
    greedy: Any = {"model": served.model, "temperature": 0, "logprobs": 1}
    one = client.completions.create(**greedy, prompt="The bread", max_tokens=24, extra_body={"ignore_eos": True})
    assert one.choices[0].logprobs is not None and one.choices[0].logprobs.token_logprobs is not None
    drawn = one.choices[0].logprobs.token_logprobs
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    ids = tokenizer.encode("The bread" + one.choices[0].text, add_special_tokens=False).ids
    scored = []
    for _ in range(2):
        again = client.completions.create(**greedy, prompt=[ids, ids[:20]], max_tokens=0, echo=True)
        found = again.choices[0].logprobs
        assert found is not None and found.token_logprobs is not None and again.usage is not None
        assert again.usage.completion_tokens == 0 and again.usage.prompt_tokens_details is not None
        assert again.usage.prompt_tokens_details.cached_tokens == 0
        scored.append(found.token_logprobs)
    assert scored[0] == pytest.approx(scored[1], abs=1e-5)
    assert len(ids) == len(tokenizer.encode("The bread").ids) + len(drawn), "read again, the text has the same tokens"
    assert scored[0][-len(drawn) :] == pytest.approx(drawn, abs=1e-4)


async def test_logprobs_of_responses(async_client: AsyncOpenAI, served: Served) -> None:
    async with async_client.responses.connect() as connection:
        await connection.response.create(
            model=served.model,
            instructions=served.system,
            input=served.question,
            temperature=0,
            top_logprobs=2,
            include=["message.output_text.logprobs"],
        )
        streamed: list[Any] = []
        async for event in connection:
            if event.type == "response.output_text.delta":
                streamed += event.logprobs
            elif event.type == "response.output_text.done":
                assert len(event.logprobs) == len(streamed)
            elif event.type == "response.completed":
                break
    part = event.response.output[0].content[0]
    assert part.text == served.answer == text_of(part.logprobs)
    assert [entry.token for entry in part.logprobs] == [entry.token for entry in streamed]
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
