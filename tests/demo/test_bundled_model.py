"""The model that ships: its files, and that it answers what the bundled businesses promise."""

import json

import pytest
import torch

from backend.demo.businesses import Business, load_businesses
from backend.demo.conversations import ABSENT
from backend.demo.evaluate import README, Chat, figures, held_out_conversations, play, play_business
from backend.demo.model import DemoLlama, load_model
from backend.demo.tokenizer import MODEL_DIR, ChatEncoder

BUSINESSES = {business.id: business for business in load_businesses()}
CONVERSATIONS = {
    "bakery": (
        ("Hello", "Hello! How can I help you?"),
        ("How much is a croissant?", "The croissant costs 1.80 euros."),
        ("And what is in it?", "The croissant contains butter, flour, milk and yeast."),
        ("And the walnut cake?", "The walnut cake contains walnuts, eggs and honey."),
        ("When are you open on Saturday?", "On Saturday from 9 to 16."),
        ("And on Sunday?", "On Sunday from 10 to 13."),
        ("How much is the pumpkin pie?", ABSENT),
        ("Thank you!", "You are welcome!"),
    ),
    "workshop": (
        ("What does the full inspection cost?", "The full inspection costs 79 euros."),
        ("How long does it take?", "The full inspection takes 2 days."),
        ("And the brake repair?", "The brake repair takes 50 minutes."),
        ("Are you open on Wednesday?", "On Wednesday closed."),
    ),
    "hotel": (
        ("What does the lake cruise cost?", "The lake cruise costs 16.50 euros."),
        ("When is it available?", "The lake cruise comes Wednesday afternoons."),
        ("What languages does Ms Lindqvar speak?", "Ms Lindqvar speaks Swedish."),
        ("And Mr Tebaldi?", "Mr Tebaldi speaks Italian."),
    ),
}


@pytest.fixture(scope="module")
def encoder() -> ChatEncoder:
    return ChatEncoder.load()


@pytest.fixture(scope="module")
def model() -> DemoLlama:
    return load_model(MODEL_DIR)


def test_the_files_are_small_and_of_llama_format() -> None:
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) < 20e6
    config = json.loads((MODEL_DIR / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    generation = json.loads((MODEL_DIR / "generation_config.json").read_text())
    encoder = ChatEncoder.load()
    assert generation["eos_token_id"] == config["eos_token_id"] == encoder.end
    assert config["vocab_size"] == encoder.vocabulary_tokens


@pytest.mark.parametrize("business", BUSINESSES.values(), ids=BUSINESSES.keys())
def test_businesses_are_what_the_model_was_made_for(business: Business, encoder: ChatEncoder) -> None:
    assert 600 <= len(encoder.message("system", business.system_prompt)) <= 1_000
    lines = business.system_prompt.splitlines()
    for sample in business.sample_questions:
        assert sample.answer in lines or sample.answer == ABSENT


@pytest.mark.parametrize("business", BUSINESSES.values(), ids=BUSINESSES.keys())
def test_sample_questions_are_answered_in_every_turn(
    business: Business, model: DemoLlama, encoder: ChatEncoder
) -> None:
    wrong = [outcome for outcome in play_business(model, encoder, business) if not outcome.right]
    assert not wrong


@pytest.mark.parametrize("business_id", CONVERSATIONS)
def test_conversations_with_follow_ups(business_id: str, model: DemoLlama, encoder: ChatEncoder) -> None:
    chat = Chat(model, encoder, BUSINESSES[business_id].system_prompt)
    expected = CONVERSATIONS[business_id]
    assert [(question, chat.ask(question)) for question, _ in expected] == list(expected)


def test_held_out_conversations_are_answered(model: DemoLlama, encoder: ChatEncoder) -> None:
    outcomes = [
        outcome
        for conversation in held_out_conversations(20, encoder, seed=7)
        for outcome in play(model, encoder, conversation.system, conversation.turns)
    ]
    assert sum(outcome.right for outcome in outcomes) / len(outcomes) >= 0.9


def test_without_a_system_prompt_it_answers_something(model: DemoLlama, encoder: ChatEncoder) -> None:
    tokens = encoder.message("user", "Who are you?") + encoder.answer_start()
    with torch.no_grad():
        assert model(torch.tensor([tokens])).isfinite().all()


def test_the_readme_shows_the_stored_evaluation() -> None:
    report = json.loads((MODEL_DIR / "evaluation.json").read_text())
    assert figures(report) in README.read_text(encoding="utf-8")
