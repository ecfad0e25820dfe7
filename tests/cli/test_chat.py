"""``banyan chat`` as a process of its own against a server in this one: pipes, commands, and Ctrl-C at a terminal."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.cli.chat import prompted_lines
from backend.cli.main import main
from tests.cli.fake_server import FakeServer, serving

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "backend.cli.main", "chat"]
PATIENCE_SECONDS = 60


def piped(fake: FakeServer, text: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the client with ``text`` on its standard input."""
    with serving(fake) as address:
        command = [*COMMAND, "--url", f"ws://{address}", *more]
        return subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def test_each_line_is_a_turn() -> None:
    fake = FakeServer()
    done = piped(fake, "hello there\n\nand again\n/stats\n/new\nfresh\n", "--system", "be kind", "--max-tokens", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == " w0 w1\n" * 3
    first, second, third = fake.created
    assert (first["input"], first["instructions"], first["max_output_tokens"]) == ("hello there", "be kind", 2)
    assert "previous_response_id" not in first
    assert second["previous_response_id"] == "resp_1"
    assert "previous_response_id" not in third
    assert "2 turns, 30 prompt tokens, 4 of them from the cache" in done.stderr
    assert "first token" in done.stderr
    assert "2 tokens" in done.stderr
    assert "4 of 15 prompt tokens from the cache | cut at --max-tokens" in done.stderr


def test_registered_prompt_and_key() -> None:
    fake = FakeServer()
    piped(fake, "hi\n", "--prompt", "bakery", "--api-key", "k", "--model", "m", "--temperature", "0")
    assert fake.created[0]["prompt"] == {"id": "bakery"}
    assert (fake.created[0]["model"], fake.created[0]["temperature"]) == ("m", 0)
    assert fake.headers == ["Bearer k"]


def test_failure_is_shown_and_the_next_turn_goes_on() -> None:
    done = piped(FakeServer(), "FAIL\nhello\n", "--max-tokens", "1")
    assert done.returncode == 1
    assert "error: engine_error: it broke" in done.stderr
    assert done.stdout == "\n w0\n"


def test_lost_connection() -> None:
    done = piped(FakeServer(), "BREAK\nhello\n")
    assert done.returncode == 1
    assert "the server closed the connection" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("url", "words"), [("ws://127.0.0.1:1", ["cannot connect", "banyan serve"]), ("nowhere", ["--url", "'nowhere'"])]
)
def test_nobody_there(url: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--url", url]) == 1
    shown = capsys.readouterr().err
    assert all(word in shown for word in words), shown


class Terminal:
    """The client at a pseudo-terminal."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self.master, self.shown = process, master, ""

    def expect(self, text: str) -> None:
        """Read on until ``text`` has been shown; then forget all up to it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.shown!r}"
            self.shown += os.read(self.master, 4096).decode()
        self.shown = self.shown.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())


@contextlib.contextmanager
def terminal(fake: FakeServer) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    with serving(fake) as address:
        process = subprocess.Popen(
            [*COMMAND, "--url", f"ws://{address}"],
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        try:
            yield Terminal(process, master)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            os.close(master)


def test_interrupt_stops_the_answer_and_the_conversation_goes_on() -> None:
    fake = FakeServer()
    with terminal(fake) as shown:
        shown.expect("> ")
        shown.type("SLOW please\n")
        shown.expect("w0")
        shown.process.send_signal(signal.SIGINT)
        shown.expect("stopped")
        assert fake.cancelled == ["resp_1"]
        shown.expect("> ")
        shown.type("hello\n")
        shown.expect("w2")
        shown.expect("> ")
        assert fake.created[1]["previous_response_id"] == "resp_1"
        shown.type("\x04")
        assert shown.process.wait(PATIENCE_SECONDS) == 0


def test_second_interrupt_leaves() -> None:
    fake = FakeServer()
    fake.deaf = True
    with terminal(fake) as shown:
        shown.expect("> ")
        shown.type("SLOW please\n")
        shown.expect("w0")
        shown.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not fake.cancelled:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(PATIENCE_SECONDS) == 130


@pytest.mark.parametrize("end", [KeyboardInterrupt, EOFError])
def test_interrupt_at_the_prompt_leaves(end: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["hello"])

    def line(prompt: str) -> str:
        for text in typed:
            return text
        raise end

    monkeypatch.setattr("builtins.input", line)
    assert list(prompted_lines()) == ["hello"]
