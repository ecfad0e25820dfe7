"""A newcomer's first minute with the product as it is installed: `banyan serve`, a browser, the bakery."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

import backend
from tests.web import server
from tests.web.conftest import Visit, watched
from tests.web.visitor import ask, bar_in_words, figures, has_ended, is_connected

BAKERY = json.loads((Path(backend.__file__).parent / "demo" / "businesses.json").read_text())[0]
SERVE = [sys.executable, "-m", "backend.cli.main", "serve", "--port", "0", "--kv-memory", "64MiB", "--threads", "1"]


@pytest.fixture(scope="module")
def product() -> Iterator[str]:
    """The address of a real server with the bundled model; it ends with exit code 0."""
    server.built_ui()
    process = subprocess.Popen(SERVE, cwd=server.REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if ready := re.search(r"ready on (http://\S+)", line):
            break
    else:
        pytest.fail(f"banyan serve ended: {said}")
    yield ready[1]
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture
def visit(chrome: Browser, product: str) -> Iterator[Visit]:
    yield from watched(chrome.new_context(viewport={"width": 1280, "height": 800}), product)


def test_the_bakery_answers_and_the_second_conversation_shares(visit: Visit) -> None:
    page = visit.open()
    is_connected(page)
    first, second = BAKERY["sample_questions"][0], BAKERY["sample_questions"][3]
    page.get_by_role("region", name="Suggestions").get_by_role("button", name=first["question"], exact=True).click()
    turn = page.locator(".turn").first
    has_ended(turn)
    expect(turn.get_by_test_id("answer")).to_have_text(first["answer"])
    cached, prompt = bar_in_words(turn)
    assert prompt > 300
    # Registered prompts are computed when the server starts: whoever comes first finds them too.
    assert cached > 0.85 * prompt

    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    turn = ask(page, second["question"])
    has_ended(turn)
    expect(turn.get_by_test_id("answer")).to_have_text(second["answer"])
    cached, prompt = bar_in_words(turn)
    assert cached > 0.85 * prompt
    assert "ms" in figures(turn)["First token"]
