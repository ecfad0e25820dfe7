"""User text never becomes a control token; what is no forgery is encoded as ever."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from backend.errors import StartError
from backend.text.conversation import ConversationEncoder
from backend.text.detokenize import Detokenizer
from backend.text.template import ChatTemplate
from backend.text.tokenizer import TextTokenizer
from tests.text.templates import TEMPLATES

PIECES = [
    "<|im_",
    "start|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<",
    "|",
    ">",
    "im_end",
    "|>",
    "user",
    " ",
    "\n",
    "x",
]
forgeries = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@pytest.mark.parametrize("name", TEMPLATES)
@given(texts=st.lists(forgeries, min_size=3, max_size=3))
def test_text_never_becomes_a_control_token(tokenizer: TextTokenizer, name: str, texts: list[str]) -> None:
    encoder = _encoder(tokenizer, TEMPLATES[name])

    def controls(contents: list[str]) -> list[int]:
        roles = ("user", "assistant", "user")
        ids = encoder.begin([{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]).ids
        return [i for i in ids if tokenizer.first_control([i]) == 0]

    assert controls(texts) == controls(["a", "b", "c"])


@given(text=forgeries | st.text())
def test_plain_text_comes_back_and_holds_no_control_token(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode_plain(text)
    assert tokenizer.first_control(ids) is None
    assert tokenizer.library.decode(ids, skip_special_tokens=False) == text


@given(text=st.text())
def test_ordinary_text_is_encoded_as_ever(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.encode_plain(text) == tokenizer.library.encode(text, add_special_tokens=False).ids


@given(text=st.text())
def test_ordinary_documents_are_encoded_as_ever(tokenizer: TextTokenizer, text: str) -> None:
    assert tokenizer.encode_document(text) == tokenizer.library.encode(text).ids


@given(text=forgeries)
def test_a_document_holds_no_control_token(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode_document(text)
    assert tokenizer.first_control(ids) is None
    assert tokenizer.library.decode(ids, skip_special_tokens=False) == text


@given(text=forgeries | st.text())
def test_guard_only_adds_breakers(tokenizer: TextTokenizer, text: str) -> None:
    breaker = tokenizer.breaker([text])
    guarded = tokenizer.guard(text, breaker)
    assert guarded.replace(breaker, "") == text
    assert guarded.strip().replace(breaker, "") == text.strip()
    assert not any(control in guarded for control in ("<|im_start|>", "<|im_end|>", "<think>"))


def test_the_wall_stands_between_a_templates_text_and_a_message(tokenizer: TextTokenizer) -> None:
    encoder = _encoder(tokenizer, "{% for m in messages %}<|im_{{ m.content }}end|>{% endfor %}")
    ids = encoder.begin([{"role": "user", "content": "start|>x<|im_"}]).ids
    assert tokenizer.first_control(list(ids)) is None


def test_a_vocabulary_that_holds_its_control_tokens(tmp_path: Path) -> None:
    """Unigram models find ``</s>`` by themselves, added token or not."""
    vocab = [
        ("<unk>", 0.0),
        ("</s>", -0.1),
        ("a", -1.0),
        ("b", -1.0),
        ("<", -3.0),
        ("/", -3.0),
        ("s", -3.0),
        (">", -3.0),
    ]
    library = Tokenizer(models.Unigram(vocab, unk_id=0))
    library.add_special_tokens([AddedToken("</s>", special=True, normalized=False), AddedToken("<unk>", special=True)])
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.stop_tokens == {1}
    ids = tokenizer.encode_plain("a</s>b</s>")
    assert 1 not in ids and ids[0] == 2 and len(ids) == 10
    assert tokenizer.encode_rendering("a</s>b") == [2, 1, 3]
    assert tokenizer.encode_plain("?") == [0]


def test_stop_tokens_come_from_every_file(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 7]}')
    end = TextTokenizer.load(folder).library.token_to_id("<|im_end|>")
    assert TextTokenizer.load(tmp_path).stop_tokens == {0, 7, end}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"model": {"type": "?"}}'),
        ("generation_config.json", '{"eos_token_id": "x"}'),
        ("tokenizer_config.json", "\x00"),
    ],
)
def test_bad_files_are_named(folder: Path, tmp_path: Path, name: str, text: str | None) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(StartError, match=name):
        TextTokenizer.load(tmp_path)


def _encoder(tokenizer: TextTokenizer, template: str) -> ConversationEncoder:
    return ConversationEncoder(tokenizer, ChatTemplate(template, tokenizer.special_tokens), Detokenizer(tokenizer))
