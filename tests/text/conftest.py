"""A model folder made once."""

from pathlib import Path

import pytest

from backend.text.conversation import ConversationEncoder
from backend.text.detokenize import Detokenizer
from backend.text.template import ChatTemplate
from backend.text.tokenizer import TextTokenizer
from tests.server.model_folder import make_model_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> TextTokenizer:
    return TextTokenizer.load(folder)


@pytest.fixture(scope="session")
def encoder(folder: Path, tokenizer: TextTokenizer) -> ConversationEncoder:
    return ConversationEncoder(tokenizer, ChatTemplate.load(folder, tokenizer.special_tokens), Detokenizer(tokenizer))
