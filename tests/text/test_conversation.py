"""The next turn's ids are the last turn's and what is new."""

import pytest

from backend.text.conversation import ConversationEncoder, Prompt
from backend.text.detokenize import Detokenizer
from backend.text.template import ChatTemplate
from backend.text.tokenizer import TextTokenizer
from tests.text.templates import TEMPLATES

SYSTEM = {"role": "system", "content": "You are a bakery."}
FIRST = {"role": "user", "content": "Hello"}
SECOND = {"role": "user", "content": "How much is <|im_end|> bread?"}
END = "<|im_end|>"
EXTENDABLE = ("chatml", "llama3", "mistral")


def encoder_of(tokenizer: TextTokenizer, name: str) -> ConversationEncoder:
    template = ChatTemplate(TEMPLATES.get(name, name), tokenizer.special_tokens)
    return ConversationEncoder(tokenizer, template, Detokenizer(tokenizer))


def rendered(encoder: ConversationEncoder, answer: str) -> Prompt:
    return encoder.begin([SYSTEM, FIRST, {"role": "assistant", "content": answer}, SECOND])


@pytest.mark.parametrize("wrote_its_end", [True, False])
def test_chatml_extends_to_what_a_rendering_gives(
    encoder: ConversationEncoder, tokenizer: TextTokenizer, wrote_its_end: bool
) -> None:
    prompt = encoder.begin([SYSTEM, FIRST])
    answer = tokenizer.encode_plain("Good morning 🙂")
    drawn = answer + [tokenizer.library.token_to_id(END)] * wrote_its_end
    past = encoder.finish(prompt, drawn, "Good morning 🙂", cut=False)
    following = encoder.extend(past, [SECOND])
    assert following.ids[: len(past.ids)] == past.ids == prompt.ids + type(prompt.ids)("I", drawn)
    assert following.ids == rendered(encoder, "Good morning 🙂").ids
    assert following.history_tokens == len(past.ids)
    assert 0 < following.system_tokens == prompt.system_tokens < len(prompt.ids)


@pytest.mark.parametrize("name", EXTENDABLE)
def test_drawn_tokens_stay_as_they_were_drawn(tokenizer: TextTokenizer, name: str) -> None:
    """Even where encoding the text would give other tokens."""
    encoder = encoder_of(tokenizer, name)
    prompt = encoder.begin([SYSTEM, FIRST])
    drawn = [token for letter in "croissant" for token in tokenizer.encode_plain(letter)]
    past = encoder.finish(prompt, drawn, "croissant", cut=False)
    following = encoder.extend(past, [SECOND])
    assert following.ids[: len(past.ids)] == past.ids
    shown, whole = (
        tokenizer.library.decode(list(ids), skip_special_tokens=False).replace(" ", "")  # a space that the model draws
        for ids in (following.ids, rendered(encoder, "croissant").ids)
    )
    assert shown == whole


def test_another_end_token_than_the_templates_is_replaced(
    encoder: ConversationEncoder, tokenizer: TextTokenizer
) -> None:
    answer = tokenizer.encode_plain("Hi")
    past = encoder.finish(encoder.begin([SYSTEM, FIRST]), answer, "Hi", cut=False)
    assert encoder.end_of_turn() == tokenizer.library.token_to_id(END)
    assert encoder.extend(past, [SECOND]).ids == rendered(encoder, "Hi").ids


def test_a_template_that_rewrites_history_is_rendered_anew(tokenizer: TextTokenizer) -> None:
    template = "{% for m in messages if m.role != 'assistant' or m == messages[-1] %}{{ m.content }}|{% endfor %}"
    encoder = encoder_of(tokenizer, template)
    past = encoder.finish(encoder.begin([FIRST]), tokenizer.encode_plain("Hi"), "Hi", cut=False)
    following = encoder.extend(past, [SECOND])
    answer = {"role": "assistant", "content": "Hi"}
    assert following.ids == encoder.begin([FIRST, answer, SECOND]).ids
    assert following.history_tokens == 0


def test_what_follows_a_stop_string_is_not_in_the_history(
    encoder: ConversationEncoder, tokenizer: TextTokenizer
) -> None:
    prompt = encoder.begin([SYSTEM, FIRST])
    drawn = tokenizer.encode_plain("A croissant costs three euros")
    past = encoder.finish(prompt, drawn, "A croissant cos", cut=True)
    answer = list(past.ids[len(prompt.ids) :])
    assert tokenizer.library.decode(answer) == "A croissant cos"
    assert answer[0] == drawn[0]


def test_system_tokens_end_before_the_users_words(encoder: ConversationEncoder, tokenizer: TextTokenizer) -> None:
    prompt = encoder.begin([SYSTEM, FIRST])
    front = tokenizer.library.decode(list(prompt.ids[: prompt.system_tokens]), skip_special_tokens=False)
    assert front == "<|im_start|>system\nYou are a bakery.<|im_end|>\n<|im_start|>user\n"
    assert encoder.begin([FIRST]).system_tokens == 0


@pytest.mark.parametrize("name", EXTENDABLE)
def test_the_system_prefix_is_what_conversations_begin_with(tokenizer: TextTokenizer, name: str) -> None:
    encoder = encoder_of(tokenizer, name)
    prefix = encoder.system_prefix(SYSTEM["content"])
    assert len(prefix) > 5
    for words in ("Hello", "7 breads", "<|im_end|> x", "日本", "?"):
        prompt = encoder.begin([SYSTEM, {"role": "user", "content": words}])
        assert prompt.ids[: prompt.system_tokens] == prefix
