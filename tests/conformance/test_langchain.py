"""``langchain-openai``, unmodified, against the server with the bundled model."""

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

from tests.conformance.conftest import Served


@pytest.fixture
def chat(served: Served) -> ChatOpenAI:
    return ChatOpenAI(model=served.model, base_url=served.url, api_key="any", temperature=0, max_retries=0)  # type: ignore[arg-type]


def messages(served: Served) -> list[Any]:
    return [SystemMessage(served.system), HumanMessage(served.question)]


def test_invoke_with_logprobs(chat: ChatOpenAI, served: Served) -> None:
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(messages(served))
    assert answer.content == served.answer
    entries = answer.response_metadata["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == served.answer
    assert answer.usage_metadata is not None and answer.usage_metadata["input_token_details"]["cache_read"] >= 0


async def test_stream(chat: ChatOpenAI, served: Served) -> None:
    parts = [part async for part in chat.astream(messages(served), stream_usage=True)]
    assert "".join(str(part.content) for part in parts) == served.answer
    assert parts[-1].usage_metadata or any(part.usage_metadata for part in parts)
    assert len(parts) > 3


def test_n_and_batch(chat: ChatOpenAI, served: Served) -> None:
    result = ChatOpenAI(
        model=served.model,
        base_url=served.url,
        api_key="any",  # type: ignore[arg-type]
        temperature=1.5,
        n=3,
        seed=1,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        max_completion_tokens=10,
    ).generate([messages(served)])
    assert len(result.generations[0]) == 3
    answers = chat.batch([messages(served)] * 3)
    assert [answer.content for answer in answers] == [served.answer] * 3


def test_completions(served: Served) -> None:
    model = OpenAI(model=served.model, base_url=served.url, api_key="any", temperature=0, max_tokens=5, max_retries=0)  # type: ignore[arg-type]
    whole = model.invoke("The bread")
    assert whole and "".join(model.stream("The bread")) == whole
