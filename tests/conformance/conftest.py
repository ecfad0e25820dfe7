"""The same running server as in the server's own tests; and ``banyan serve`` as a process, with the bundled model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import backend
from backend.cli.checkpoint import BUNDLED_ID
from tests.cli.test_serve import started
from tests.server.conftest import folder, house, tokenizer

__all__ = ["folder", "house", "tokenizer"]


class Served(NamedTuple):
    """``address``: of the server, ``host:port``; a system prompt, and a question to it with the model's answer."""

    address: str
    model: str
    system: str
    question: str
    answer: str

    @property
    def url(self) -> str:
        return f"http://{self.address}/v1"


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """The real server. Whoever asks it must not depend on what others have asked."""
    businesses = json.loads((Path(backend.__file__).parent / "demo" / "businesses.json").read_text())
    bakery = next(business for business in businesses if business["id"] == "bakery")
    sample = bakery["sample_questions"][0]
    with started() as server:
        address = server.wait_ready()
        yield Served(address, BUNDLED_ID, bakery["system_prompt"], sample["question"], sample["answer"])
