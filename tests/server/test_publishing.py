"""The registry's prompts reach the engine as every conversation begins, and what cannot be pinned is named."""

from pathlib import Path

from backend.server.prompts import PromptRegistry, SystemPrompt
from backend.server.publishing import publish_prompts
from backend.server.service import ChatService
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import House, make_house
from tests.server.fake_app import BAKERY
from tests.server.fake_engine import PAGE, FakeEngine

TINY = SystemPrompt("tiny", "Tiny", "Less than a page", "Hi.")
HOTEL = SystemPrompt("hotel", "Hotel", "A hotel", "You are the receptionist. " + "A room costs 90 euros. " * 20)


def service_of(folder: Path, tokenizer: TextTokenizer, *prompts: SystemPrompt) -> tuple[ChatService, FakeEngine]:
    engine = FakeEngine(lambda prompt: (), vocab_size=tokenizer.vocab_size)
    return ChatService(engine, folder, "small", PromptRegistry(list(prompts))), engine


async def test_what_is_published_is_what_conversations_begin_with(folder: Path, tokenizer: TextTokenizer) -> None:
    service, engine = service_of(folder, tokenizer, BAKERY, HOTEL)
    assert await publish_prompts(service) == []
    assert list(engine.public) == ["bakery", "hotel"]
    for prompt in (BAKERY, HOTEL):
        ids, pin = engine.public[prompt.id]
        begun = service.model.encoder.begin(
            [{"role": "system", "content": prompt.system_prompt}, {"role": "user", "content": "How much?"}]
        )
        assert ids == begun.ids[: begun.system_tokens].tobytes()
        assert pin == "soft" and len(ids) // 4 > PAGE


async def test_less_than_a_page_is_passed_over(folder: Path, tokenizer: TextTokenizer) -> None:
    service, engine = service_of(folder, tokenizer, TINY)
    assert 0 < len(service.model.encoder.system_prefix(TINY.system_prompt)) < PAGE
    assert await publish_prompts(service) == [] and engine.public == {}


async def test_beyond_the_budget_a_prompt_is_shared_but_not_pinned(folder: Path, tokenizer: TextTokenizer) -> None:
    service, engine = service_of(folder, tokenizer, BAKERY, HOTEL)
    engine.pin_pages = len(service.model.encoder.system_prefix(BAKERY.system_prompt)) // PAGE
    (warning,) = await publish_prompts(service)
    assert warning.startswith("the system prompt 'hotel' may be evicted: hotel needs ")
    assert f"{engine.pin_pages} of the budget of {engine.pin_pages}" in warning
    assert {name: pin for name, (_, pin) in engine.public.items()} == {"bakery": "soft", "hotel": ""}


async def test_a_prompt_that_the_template_refuses_is_named(folder: Path, tokenizer: TextTokenizer) -> None:
    forged = SystemPrompt(
        "forged", "", "", "".join(map(chr, range(0xF0000, 0xFFFFE)))
    )  # no character is left as breaker
    service, engine = service_of(folder, tokenizer, forged, BAKERY)
    (warning,) = await publish_prompts(service)
    assert warning.startswith("the system prompt 'forged' is not shared: ")
    assert list(engine.public) == ["bakery"]


async def test_an_engine_that_is_gone_is_not_complained_about(folder: Path, tokenizer: TextTokenizer) -> None:
    service, engine = service_of(folder, tokenizer, BAKERY)
    engine.die()
    assert await publish_prompts(service) == []


async def test_a_request_finds_what_was_published(folder: Path, tokenizer: TextTokenizer) -> None:
    house: House = make_house(folder, tokenizer)
    await publish_prompts(house.service)
    ids, _ = house.engine.public["bakery"]
    begun = house.service.model.encoder.begin(
        [{"role": "system", "content": BAKERY.system_prompt}, {"role": "user", "content": "How much?"}]
    )
    assert house.engine.find(begun.ids) == len(ids) // 4 // PAGE * PAGE
