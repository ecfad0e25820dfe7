"""Renderings and their ids against transformers."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from backend.errors import RequestError, StartError
from backend.text.conversation import ConversationEncoder
from backend.text.detokenize import Detokenizer
from backend.text.template import ChatTemplate
from backend.text.tokenizer import TextTokenizer
from tests.text.templates import TEMPLATES

SYSTEM = {"role": "system", "content": "You are a bakery.\nA croissant costs 3 euros."}
CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hello"}],
    "system": [SYSTEM, {"role": "user", "content": "How much is a croissant?"}],
    "turns": [
        SYSTEM,
        {"role": "user", "content": "  Hello \n"},
        {"role": "assistant", "content": 'Hi! <b>bold</b> & "quotes" 🙂'},
        {"role": "user", "content": "\n\nDo you have “bread”?\n"},
    ],
    "edges": [
        {"role": "user", "content": ">"},
        {"role": "assistant", "content": "a < b"},
        {"role": "user", "content": "x <"},
    ],
    "tool": [{"role": "user", "content": "<tool>42</tool>"}],
}


@pytest.fixture(scope="module")
def reference(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<|im_start|>", eos_token="<|im_end|>"
    )


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("generation", [True, False])
def test_renders_as_transformers(
    tokenizer: TextTokenizer,
    reference: PreTrainedTokenizerFast,
    template: str,
    conversation: str,
    generation: bool,
) -> None:
    messages = CONVERSATIONS[conversation]
    ours = ChatTemplate(TEMPLATES[template], tokenizer.special_tokens)
    expected = reference.apply_chat_template(
        messages, chat_template=TEMPLATES[template], tokenize=False, add_generation_prompt=generation
    )
    assert ours.render(messages, add_generation_prompt=generation) == expected


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_ids_are_those_of_transformers(
    tokenizer: TextTokenizer, reference: PreTrainedTokenizerFast, template: str, conversation: str
) -> None:
    messages = CONVERSATIONS[conversation]
    encoder = ConversationEncoder(
        tokenizer, ChatTemplate(TEMPLATES[template], tokenizer.special_tokens), Detokenizer(tokenizer)
    )
    expected = reference.apply_chat_template(
        messages, chat_template=TEMPLATES[template], add_generation_prompt=True, return_dict=False
    )
    assert list(encoder.begin(messages).ids) == list(expected)


def test_a_template_may_refuse(tokenizer: TextTokenizer) -> None:
    template = ChatTemplate(TEMPLATES["llama2"], tokenizer.special_tokens)
    with pytest.raises(RequestError, match="roles must alternate"):
        template.render([{"role": "assistant", "content": "x"}], add_generation_prompt=True)


@pytest.mark.parametrize("source", ["{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}", "{{ messages[7].role }}"])
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises(RequestError):
        ChatTemplate(source, {}).render([{"role": "user", "content": "x"}], add_generation_prompt=True)


def test_where_the_template_is_found(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no chat template"):
        ChatTemplate.load(tmp_path, {})
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert ChatTemplate.load(tmp_path, {}).source == "d"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert ChatTemplate.load(tmp_path, {}).source == "file"
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(StartError, match="cannot be compiled"):
        ChatTemplate.load(tmp_path, {})
