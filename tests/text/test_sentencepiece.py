"""Tokenizers that mark words with ``▁``, in the three ways they put one in front: ids are those of transformers."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from backend.text.conversation import ConversationEncoder
from backend.text.detokenize import Detokenizer
from backend.text.template import ChatTemplate
from backend.text.tokenizer import TextTokenizer
from tests.server.model_folder import CORPUS, SPECIAL
from tests.text.templates import TEMPLATES
from tests.text.test_template import CONVERSATIONS

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@pytest.fixture(scope="module", params=["prepended", "first", "always"])
def sentencepiece(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    if request.param == "prepended":
        library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=request.param, split=False)
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", *SPECIAL, *BYTES], show_progress=False)
    library.train_from_iterator([word for line in CORPUS for word in line.split()], trainer)
    definition = json.loads(library.to_str())
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["content"] not in BYTES]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    names = {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.mark.parametrize("template", TEMPLATES)
def test_ids_are_those_of_transformers(sentencepiece: Path, template: str) -> None:
    tokenizer = TextTokenizer.load(sentencepiece)
    source = TEMPLATES[template]
    encoder = ConversationEncoder(tokenizer, ChatTemplate(source, tokenizer.special_tokens), Detokenizer(tokenizer))
    reference = PreTrainedTokenizerFast(
        tokenizer_file=str(sentencepiece / "tokenizer.json"), bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    for messages in CONVERSATIONS.values():
        expected = reference.apply_chat_template(
            messages, chat_template=source, add_generation_prompt=True, return_dict=False
        )
        assert list(encoder.begin(messages).ids) == list(expected)


@pytest.mark.parametrize("text", ["The bread", " The  bread", "naïve 🙂", "x"])
def test_documents_begin_as_the_tokenizer_says(sentencepiece: Path, tmp_path: Path, text: str) -> None:
    library = Tokenizer.from_file(str(sentencepiece / "tokenizer.json"))
    begin = ("<|im_start|>", library.token_to_id("<|im_start|>"))
    library.post_processor = processors.TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text((sentencepiece / "tokenizer_config.json").read_text())
    ids = TextTokenizer.load(tmp_path).encode_document(text)
    assert ids == library.encode(text).ids and ids[0] == begin[1]
