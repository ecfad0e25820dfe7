"""``litellm``, unmodified, against the server with the bundled model."""

import os
from types import ModuleType
from typing import Any

import pytest

from tests.conformance.conftest import Served


@pytest.fixture(scope="module")
def litellm() -> ModuleType:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it looks for a list of prices on the network
    import litellm

    litellm.telemetry = False
    return litellm


def fields(served: Served, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": served.system}, {"role": "user", "content": served.question}]
    return {
        "model": f"openai/{served.model}",
        "api_base": served.url,
        "api_key": "any",
        "temperature": 0,
        "max_retries": 0,
        "messages": messages,
        **more,
    }


def test_whole_and_streamed(litellm: ModuleType, served: Served) -> None:
    whole = litellm.completion(**fields(served, logprobs=True, top_logprobs=2, n=2))
    assert [choice.message.content for choice in whole.choices] == [served.answer] * 2
    entries = whole.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == served.answer
    assert whole.usage.prompt_tokens_details.cached_tokens >= 0
    stream = litellm.completion(**fields(served, stream=True, stream_options={"include_usage": True}))
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == served.answer
    assert any(getattr(chunk, "usage", None) for chunk in chunks)


async def test_settings(litellm: ModuleType, served: Served) -> None:
    more: Any = {"presence_penalty": 0.5, "frequency_penalty": 0.5, "logit_bias": {"5": -1}, "seed": 3, "stop": ["."]}
    answer = await litellm.acompletion(**fields(served, **more, max_tokens=20, min_p=0.1))
    assert "." not in answer.choices[0].message.content


def test_errors_are_its_own(litellm: ModuleType, served: Served) -> None:
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**fields(served, n=99))
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**fields(served), "model": "openai/another"})


def test_text_completion(litellm: ModuleType, served: Served) -> None:
    answer = litellm.text_completion(
        model=f"text-completion-openai/{served.model}",
        api_base=served.url,
        api_key="any",
        prompt="The bread",
        max_tokens=5,
        temperature=0,
    )
    assert answer.choices[0].text
