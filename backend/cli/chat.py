"""``banyan chat``: a terminal client over our WebSocket. Knows the protocol through ``Answer``; nothing of servers.

At a terminal it prompts, streams and lets Ctrl-C stop an answer; with piped input each line is one turn, answers go to
standard output and figures to standard error.
"""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TextIO

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from backend.cli.answer import Answer, create_event, responses_url
from backend.errors import BanyanError, StartError

POLL_SECONDS = 0.1  # how soon Ctrl-C is noticed while nothing arrives
HELP = "/new: a new conversation, /stats: its figures, /quit: leave; Ctrl-C stops an answer, a second one leaves"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser(
        "chat", help="talk to a server in the terminal", description="Talk to a running server.", epilog=HELP
    )
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="address of the server (default: %(default)s)")
    parser.add_argument(
        "--prompt", metavar="ID", help="a system prompt that is registered with the server (default: none)"
    )
    parser.add_argument("--system", metavar="TEXT", help="a system prompt of your own (default: none)")
    parser.add_argument("--model", help="model name to ask for (default: the server's)")
    parser.add_argument(
        "--max-tokens", type=int, metavar="TOKENS", help="most tokens of an answer (default: the server's)"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="sampling temperature, 0 for greedy (default: the server's)"
    )
    parser.add_argument("--api-key", metavar="KEY", help="sent as bearer token (default: none)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Talk until the input ends or the user leaves; 1 when an answer failed in piped use."""
    try:
        url = responses_url(arguments.url)
    except ValueError as error:
        raise StartError(f"--url {error}", param="url") from None
    headers = {"Authorization": f"Bearer {arguments.api_key}"} if arguments.api_key else {}
    with _connected(url, headers) as connection:
        conversation = Conversation(connection, request_fields(arguments))
        if sys.stdin.isatty():
            print(f"connected to {arguments.url}; {HELP}", file=sys.stderr)
            return talk(conversation, prompted_lines(), sys.stdout, sys.stderr, interactive=True)
        return talk(conversation, sys.stdin, sys.stdout, sys.stderr, interactive=False)


@contextlib.contextmanager
def _connected(url: str, headers: dict[str, str]) -> Iterator[ClientConnection]:
    try:
        connection = connect(url, additional_headers=headers, compression=None, proxy=None)
    except InvalidStatus as error:
        body = (error.response.body or b"").decode(errors="replace")[:200]
        raise StartError(f"{url} refused: HTTP {error.response.status_code} {body}".strip(), param="url") from error
    except (OSError, InvalidHandshake) as error:
        raise StartError(f"cannot connect to {url}: {error}; is `banyan serve` running there?", param="url") from error
    with connection:
        try:
            yield connection
        except ConnectionClosed as error:
            raise BanyanError(f"the server closed the connection: {error}", code="connection_closed") from error


def request_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fields of every ``response.create``; None where nothing was asked for."""
    return {
        "model": arguments.model,
        "instructions": arguments.system,
        "prompt": {"id": arguments.prompt} if arguments.prompt else None,
        "max_output_tokens": arguments.max_tokens,
        "temperature": arguments.temperature,
    }


class Turn(msgspec.Struct, frozen=True):
    """What a turn was: counted by the server, timed here. ``ttft_s`` None when no text came."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_s: float | None
    tokens_per_s: float
    ended: str

    def line(self) -> str:
        """One line under an answer."""
        first = f"first token {self.ttft_s * 1000:,.0f} ms" if self.ttft_s is not None else "no text"
        rest = f"{self.output_tokens} tokens, {self.tokens_per_s:,.1f} tokens/s"
        cache = f"{self.cached_tokens} of {self.prompt_tokens} prompt tokens from the cache"
        return " | ".join(filter(None, (first, rest, cache, self.ended)))


class Conversation:
    """Turns on one socket; the server keeps the history. ``turns`` are those since it was begun or ``restart``ed."""

    def __init__(self, connection: ClientConnection, fields: dict[str, Any]) -> None:
        self.turns: list[Turn] = []
        self.stop_asked = False
        self._connection = connection
        self._fields = fields
        self._previous: str | None = None

    def restart(self) -> None:
        """Forget the history."""
        self._previous = None
        self.turns = []

    def ask(self, text: str, out: TextIO) -> Answer:
        """Send a message, write the answer to ``out`` as it comes. Setting ``stop_asked`` meanwhile stops it."""
        self.stop_asked = False
        self._send(create_event(text, previous_response_id=self._previous, **self._fields))
        answer, sent, first, cancelled = Answer(), time.perf_counter(), None, False
        while not answer.done:
            if self.stop_asked and not cancelled and answer.response_id:
                self._send({"type": "response.cancel", "response_id": answer.response_id})
                cancelled = True
            if (event := self._receive()) is None:
                continue
            if new := answer.apply(event):
                first = first or time.perf_counter()
                out.write(new)
                out.flush()
        if not answer.error:
            self._previous = answer.response_id
            self.turns.append(_turn(answer, sent, first, time.perf_counter()))
        return answer

    def _send(self, event: dict[str, Any]) -> None:
        self._connection.send(msgspec.json.encode(event).decode())

    def _receive(self) -> dict[str, Any] | None:
        try:
            return msgspec.json.decode(self._connection.recv(timeout=POLL_SECONDS), type=dict[str, Any])
        except TimeoutError:
            return None


def _turn(answer: Answer, sent: float, first: float | None, ended: float) -> Turn:
    tokens = answer.output_tokens or 0
    writing = ended - first if first is not None else 0.0
    return Turn(
        prompt_tokens=answer.prompt_tokens or 0,
        cached_tokens=answer.cached_tokens or 0,
        output_tokens=tokens,
        ttft_s=first - sent if first is not None else None,
        tokens_per_s=(tokens - 1) / writing if tokens > 1 and writing > 0 else 0.0,
        ended={"cancelled": "stopped", "max_output_tokens": "cut at --max-tokens"}.get(
            answer.stopped_by, answer.stopped_by
        ),
    )


def talk(conversation: Conversation, lines: Iterable[str], out: TextIO, notes: TextIO, *, interactive: bool) -> int:
    """One turn per line; lines with a slash are commands. 1 when an answer failed and nobody was there to see it."""
    failures = 0
    for line in lines:
        text = line.strip()
        if text in ("/quit", "/exit"):
            break
        if text.startswith("/"):
            notes.write(command(conversation, text) + "\n")
        elif text:
            with _interrupt_stops(conversation):
                answer = conversation.ask(text, out)
            out.write("\n")
            out.flush()
            failures += bool(answer.error)
            notes.write((f"error: {answer.error}" if answer.error else f"[{conversation.turns[-1].line()}]") + "\n")
        notes.flush()
    return 1 if failures and not interactive else 0


def command(conversation: Conversation, text: str) -> str:
    """Carry out a line that begins with a slash; what to say about it."""
    if text == "/new":
        conversation.restart()
        return "a new conversation"
    if text == "/stats":
        turns = conversation.turns
        prompt, cached = sum(t.prompt_tokens for t in turns), sum(t.cached_tokens for t in turns)
        share = f" ({cached / prompt:.0%})" if prompt else ""
        output = sum(t.output_tokens for t in turns)
        counts = f"{prompt:,} prompt tokens, {cached:,} of them from the cache{share}, {output:,} output tokens"
        return f"{len(turns)} turns, {counts}"
    return HELP


@contextlib.contextmanager
def _interrupt_stops(conversation: Conversation) -> Iterator[None]:
    """Ctrl-C asks for a stop; once more, it leaves the program."""

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if conversation.stop_asked:
            raise KeyboardInterrupt
        conversation.stop_asked = True

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def prompted_lines() -> Iterator[str]:
    """Lines typed at a prompt, with line editing where the platform has it; Ctrl-C or Ctrl-D there ends them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  editing keys and history for input()
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
