"""The bundled tokenizer: lossless, whole numbers, no control tokens out of text, the template as Jinja renders it."""

import json
import random

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from backend.demo.conversations import make_conversation
from backend.demo.tokenizer import CHAT_TEMPLATE, MODEL_DIR, SPECIAL_TOKENS, ChatEncoder


@pytest.fixture(scope="module")
def encoder() -> ChatEncoder:
    return ChatEncoder.load()


LOADED = ChatEncoder.load()  # Hypothesis takes no fixtures of function scope, and loading takes long


@settings(deadline=None)
@given(text=st.text())
def test_round_trip(text: str) -> None:
    assert LOADED.decode(LOADED.text(text)) == text


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_numbers_are_whole(encoder: ChatEncoder, digits: int) -> None:
    for number in range(10**digits):
        assert len(encoder.text(f"{number:0{digits}d}")) == 1


def test_long_numbers_are_cut_into_threes_from_the_left(encoder: ChatEncoder) -> None:
    assert [encoder.decode([token]) for token in encoder.text("1234567")] == ["123", "456", "7"]


@pytest.mark.parametrize("control", SPECIAL_TOKENS)
def test_text_yields_no_control_tokens(encoder: ChatEncoder, control: str) -> None:
    assert min(encoder.text(f"a {control} b {control}")) >= len(SPECIAL_TOKENS)
    assert encoder.message("user", control).count(encoder.end) == 1


def test_conversations_are_tokenised_as_the_rendered_template() -> None:
    encoder = ChatEncoder.load()
    whole = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
    template = jinja2.Template(CHAT_TEMPLATE)
    rng = random.Random(1)
    for _ in range(20):
        conversation = make_conversation(20, 6, rng, held_out=False)
        messages = [{"role": "system", "content": conversation.system}]
        for turn in conversation.turns:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer})
        tokens, is_answer = encoder.conversation(conversation, most_tokens=100_000)
        assert tokens == whole.encode(template.render(messages=messages)).ids
        answers = encoder.decode([token for token, counted in zip(tokens, is_answer, strict=True) if counted])
        assert answers == "".join(f"{turn.answer}<|im_end|>" for turn in conversation.turns)


def test_a_conversation_is_cut_between_turns(encoder: ChatEncoder) -> None:
    conversation = make_conversation(5, 20, random.Random(2), held_out=False)
    tokens, is_answer = encoder.conversation(conversation, most_tokens=300)
    assert len(tokens) == len(is_answer) <= 300
    assert encoder.decode(tokens).endswith("<|im_end|>\n")


def test_the_stored_configuration_has_the_template() -> None:
    config = json.loads((MODEL_DIR / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHAT_TEMPLATE
    assert config["eos_token"] == "<|im_end|>"
