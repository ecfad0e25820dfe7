"""The real server before a fake engine, to build a client against: ``python -m tests.server.fake_app --port 8000``.

The answers are words without sense. Saying "long" asks for a long one, "while" for one of some seconds, "markdown" for
a formatted one, "die" ends the engine.
"""

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import uvicorn

import backend
from backend.server.app import create_app
from backend.server.prompts import PromptRegistry, Question, SystemPrompt
from backend.server.run import uvicorn_config
from backend.server.service import ChatService
from backend.text.tokenizer import TextTokenizer
from tests.server.fake_engine import FakeEngine
from tests.server.model_folder import make_model_folder

WORDS = "A croissant costs three euros and the bread is baked at seven in the morning. "
MARKDOWN = "## Prices\n\n| what | price |\n|---|---|\n| croissant | **3 euros** |\n\n- one\n"
MARKDOWN += "- two\n\n```python\nprint(1)\n```\n🙂"
BAKERY = SystemPrompt(
    "bakery",
    "Bakery",
    "A bakery with a long price list",
    "You are the assistant of a bakery. " + WORDS * 20,
    [Question("How much is a croissant?", "A croissant costs three euros.")],
)


class Parrot:
    """Answers by what the prompt's last message holds."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self.engine: FakeEngine | None = None

    def __call__(self, prompt: list[int]) -> Iterator[int]:
        text = self._tokenizer.library.decode(prompt, skip_special_tokens=False)
        asked = text.rpartition("<|im_start|>user")[2].lower()
        if "die" in asked.split() and self.engine is not None:
            asyncio.get_running_loop().call_later(0.5, self.engine.die)
        answer = MARKDOWN if "markdown" in asked else WORDS * (40 if "long" in asked else 10 if "while" in asked else 1)
        return itertools.chain(self._tokenizer.encode_plain(answer), itertools.repeat(min(self._tokenizer.stop_tokens)))


def fake_service(folder: Path, seconds_per_token: float, prompts: PromptRegistry) -> ChatService:
    """A service whose engine is a fake."""
    tokenizer = TextTokenizer.load(make_model_folder(folder))
    parrot = Parrot(tokenizer)
    parrot.engine = FakeEngine(
        parrot, vocab_size=tokenizer.vocab_size, seconds_per_token=seconds_per_token, prefill_seconds=0.05
    )
    return ChatService(parrot.engine, folder, "fake-model", prompts)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--seconds-per-token", type=float, default=0.03)
    options = parser.parse_args()
    businesses = Path(backend.__file__).parent / "demo" / "businesses.json"
    prompts = PromptRegistry.load(businesses) if businesses.is_file() else PromptRegistry([BAKERY])
    with tempfile.TemporaryDirectory() as folder:
        service = fake_service(Path(folder), options.seconds_per_token, prompts)
        uvicorn.Server(uvicorn_config(create_app(service), "127.0.0.1", options.port)).run()


if __name__ == "__main__":
    main()
