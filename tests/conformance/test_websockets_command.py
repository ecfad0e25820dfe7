"""The command line of ``websockets``, as somebody would who looks at the protocol by hand."""

import json
import re
import subprocess
import sys
import time

from tests.conformance.conftest import Served

PATIENCE_SECONDS = 60


def test_a_turn_by_hand(served: Served) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "websockets", f"ws://{served.address}/v1/responses"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        event = {"type": "response.create", "instructions": served.system, "input": served.question, "temperature": 0}
        process.stdin.write(json.dumps(event) + "\n")
        process.stdin.flush()
        text, until = "", time.monotonic() + PATIENCE_SECONDS
        for line in process.stdout:
            assert time.monotonic() < until
            if (found := re.search(r"\{.*\}", line)) is None:
                continue  # the client's own words
            event = json.loads(found.group())
            text += event.get("delta", "") if event["type"] == "response.output_text.delta" else ""
            if event["type"] == "response.completed":
                break
        assert text == served.answer
        process.stdin.close()  # the end of its input ends the client
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
