"""A newcomer's way, with OpenAI's own client: ask the bakery, get the right answer streamed, see what was shared."""

import asyncio
from typing import Any

from openai import AsyncOpenAI

from tests.end_to_end.conftest import House


async def ask(client: AsyncOpenAI, prompt: str, question: str) -> Any:
    """A first turn on a socket of its own; the completed response. The deltas add up to its text."""
    async with client.responses.connect() as connection:
        return await turn(connection, question, instructions=prompt)


async def turn(connection: Any, question: str, **fields: Any) -> Any:
    """One turn on an open socket."""
    await connection.response.create(model="banyan-demo", input=question, temperature=0, **fields)
    text = ""
    async for event in connection:
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            assert event.response.output_text == text
            return event.response
        else:
            assert event.type not in ("error", "response.failed", "response.incomplete"), event


async def test_the_bakery_knows_the_price_and_the_second_conversation_shares(house: House, businesses: dict) -> None:
    bakery = businesses["bakery"]
    first, second = bakery["sample_questions"][0], bakery["sample_questions"][3]
    client = AsyncOpenAI(base_url=house.url + "/v1", api_key="none")
    one = await ask(client, bakery["system_prompt"], first["question"])
    assert one.output_text == first["answer"]
    assert one.usage.input_tokens_details.cached_tokens == 0
    two = await ask(client, bakery["system_prompt"], second["question"])
    assert two.output_text == second["answer"]
    # Only the question and less than a page of what is before it were computed.
    computed = two.usage.input_tokens - two.usage.input_tokens_details.cached_tokens
    assert two.usage.input_tokens_details.cached_tokens > 300
    assert computed < 60
    await house.idle()


async def test_the_next_turn_computes_only_the_new_message(house: House, businesses: dict) -> None:
    bakery = businesses["bakery"]
    client = AsyncOpenAI(base_url=house.url + "/v1", api_key="none")
    async with client.responses.connect() as connection:
        one = await turn(connection, bakery["sample_questions"][0]["question"], instructions=bakery["system_prompt"])
        two = await turn(connection, bakery["sample_questions"][3]["question"], previous_response_id=one.id)
    assert two.output_text == bakery["sample_questions"][3]["answer"]
    # The partly filled last page of the first turn was kept for this conversation: nothing of it is computed again but
    # the end-of-turn token, which was sampled and never fed.
    known = one.usage.input_tokens + one.usage.output_tokens - 1
    assert two.usage.input_tokens_details.cached_tokens == known


async def test_three_businesses_at_once(house: House, businesses: dict) -> None:
    """Every sample question, all at the same time: the batch changes no answer."""
    client = AsyncOpenAI(base_url=house.url + "/v1", api_key="none")
    asked = [(b, sample) for b in businesses.values() for sample in b["sample_questions"]]
    answers = await asyncio.gather(*(ask(client, b["system_prompt"], sample["question"]) for b, sample in asked))
    wrong = [
        (sample["question"], answer.output_text)
        for (_, sample), answer in zip(asked, answers, strict=True)
        if answer.output_text != sample["answer"]
    ]
    assert wrong == []
    await house.idle()


async def test_chat_completions_stream(house: House, businesses: dict) -> None:
    bakery = businesses["bakery"]
    client = AsyncOpenAI(base_url=house.url + "/v1", api_key="none")
    messages: Any = [
        {"role": "system", "content": bakery["system_prompt"]},
        {"role": "user", "content": bakery["sample_questions"][0]["question"]},
    ]
    text, usage = "", None
    stream = await client.chat.completions.create(
        model="banyan-demo", messages=messages, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    async for chunk in stream:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == bakery["sample_questions"][0]["answer"]
    assert usage is not None
    again = await client.chat.completions.create(model="banyan-demo", messages=messages, temperature=0)
    assert again.choices[0].message.content == text
    # Every full page is found; the partly filled one went on with the answer and waits for who continues that.
    page = house.engine.info.page_size
    assert again.usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens // page * page
