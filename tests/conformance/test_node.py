"""OpenAI's SDK for Node, unmodified, against the server with the bundled model."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conformance.conftest import Served

FOLDER = Path(__file__).parent / "node"


def test_responses_socket_and_chat_completions(served: Served) -> None:
    if shutil.which("node") is None or not (FOLDER / "node_modules").is_dir():
        pytest.skip("Node.js or the packages of tests/conformance/node are not here (make setup-dev installs them)")
    done = subprocess.run(
        ["node", "clients.mjs", served.url, served.system, served.question],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["model"] == served.model
    assert seen["first"]["text"] == served.answer
    assert seen["first"]["kinds"][0] == "response.created" and "x.cache" not in seen["first"]["kinds"]
    data = b"".join(bytes(entry["bytes"]) for entry in seen["logprobs"])
    assert data.decode() == served.answer
    assert all(len(entry["top_logprobs"]) == 2 for entry in seen["logprobs"])
    assert seen["second"]["previous"] and seen["second"]["usage"]["input_tokens_details"]["cached_tokens"] > 0
    assert seen["whole"] == [served.answer] * 2
    assert seen["chatLogprobs"] == len(seen["logprobs"])
    assert seen["streamed"] == served.answer and seen["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert seen["error"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
