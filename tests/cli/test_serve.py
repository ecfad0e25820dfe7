"""``banyan serve`` as a process of its own with the bundled model: starts, answers our clients, and ends cleanly."""

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from backend import config
from backend.cli import checkpoint, serve, serving, starting
from backend.cli.loading import LoadingBar
from backend.cli.main import main
from backend.engine.messages import EngineInfo, Loading
from backend.engine.options import EngineOptions
from backend.engine.spawn import EngineChild
from backend.errors import StartError
from backend.server.tenancy import Tenancy

ROOT = Path(__file__).resolve().parents[2]
BANYAN = [sys.executable, "-m", "backend.cli.main"]
SMALL = ["--kv-memory", "64MiB", "--threads", "1", "--dtype", "float32"]
PATIENCE_SECONDS = 120


class Serving:
    """A server process in a process group of its own, and what it has said."""

    def __init__(self, *more: str) -> None:
        self.process = subprocess.Popen(
            [*BANYAN, "serve", "--port", "0", *SMALL, *more],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("BANYAN_")},
        )
        self.said = ""

    def wait_ready(self) -> str:
        """``127.0.0.1:PORT``."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if "requests at once" in line:
                return re.findall(r"http://([\d.]+:\d+)", self.said)[0]
        raise AssertionError(f"it did not start: {self.said}")

    def end(self, number: int) -> int:
        """Send a signal, wait; the exit code."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        self.said += self.process.stderr.read()
        return self.process.wait(PATIENCE_SECONDS)

    def is_gone(self) -> bool:
        """Whether nothing of its process group is left, the engine included."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def engine(self) -> int:
        """Process id of the engine."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])


@contextlib.contextmanager
def started(*more: str) -> Iterator[Serving]:
    server = Serving(*more)
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with started() as server:
        yield server.wait_ready()


def get(address: str, path: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        return answer.status, answer.read()


def test_answers(address: str) -> None:
    assert get(address, "/health")[0] == 200
    models = json.loads(get(address, "/v1/models")[1])
    assert [model["id"] for model in models["data"]] == [checkpoint.BUNDLED_ID]
    prompts = json.loads(get(address, "/v1/prompts")[1])
    assert len(prompts["data"]) == 3


def pages(address: str, name: str) -> float:
    """A gauge of /metrics."""
    shown = get(address, "/metrics")[1].decode()
    (value,) = re.findall(rf"^banyan:{re.escape(name)} ([\d.]+)$", shown, re.MULTILINE)
    return float(value)


def test_the_first_request_on_a_registered_prompt_shares_it(address: str) -> None:
    """No other test uses this prompt, so the server itself has computed what is found. The pages of this server do not
    allow it to be pinned; it is shared all the same."""
    give_up = time.monotonic() + 30
    while pages(address, 'kv_pages{state="evictable"}') < 3 * 36:
        assert time.monotonic() < give_up, "the registered prompts have not been computed"
        time.sleep(0.05)
    prompt = json.loads(get(address, "/v1/prompts")[1])["data"][-1]["text"]
    messages = [{"role": "system", "content": prompt}, {"role": "user", "content": "Hello"}]
    body = json.dumps({"model": checkpoint.BUNDLED_ID, "messages": messages, "max_tokens": 2}).encode()
    asked = urllib.request.Request(
        f"http://{address}/v1/chat/completions", body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        usage = json.loads(answer.read())["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0.9 * usage["prompt_tokens"]
    assert 2 * 36 < pages(address, 'kv_pages_pinned{kind="soft"}') < 3 * 36


def test_chat_talks_to_it(address: str) -> None:
    prompt = json.loads(get(address, "/v1/prompts")[1])["data"][0]["id"]
    command = [
        *BANYAN,
        "chat",
        "--url",
        f"ws://{address}",
        "--prompt",
        prompt,
        "--temperature",
        "0",
        "--max-tokens",
        "12",
    ]
    done = subprocess.run(command, input="Hello\nThanks\n", cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2
    figures = re.findall(r"(\d+) of (\d+) prompt tokens from the cache", done.stderr)
    assert len(figures) == 2
    cached, prompt_tokens = map(int, figures[1])
    assert cached > 0.8 * int(figures[0][1])  # the second turn finds the first one
    assert prompt_tokens > int(figures[0][1])


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_bench_measures_it(address: str, scheme: str, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    more = ["--tenants", "2", "--conversations", "4", "--turns", "2", "--system-tokens", "100", "--concurrency", "4"]
    more += ["--output-max", "12", "--ignore-eos", "--passes", "2", "--requests", "--out", str(out)]
    model = ["--model", checkpoint.BUNDLED_ID]
    assert main(["bench", "--url", f"{scheme}://{address}", *more, *model]) == 0
    cold, warm = (one["summary"] for one in json.loads(out.read_bytes())["passes"])
    assert (cold["ok"], cold["short"], cold["without_usage"]) == (8, 0, 0)
    assert cold["output_tokens"] == warm["output_tokens"]
    assert 0 < cold["cached_tokens"] < warm["cached_tokens"] < warm["prompt_tokens"]


def test_port_taken(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = address.partition(":")[2]
    assert main(["serve", "--port", port]) == 1
    shown = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is taken" in shown
    assert "--port" in shown


def test_prompts_beyond_the_budget_of_pins_are_named() -> None:
    """Of about 250 pages a fifth may be pinned: one prompt of 38 and no second one."""
    with started("--kv-memory", "32MiB") as server:
        server.wait_ready()
        assert server.process.stderr is not None
        lines = [server.process.stderr.readline() for _ in range(2)]
        for line in lines:
            assert re.search(r"^banyan: the system prompt '\w+' may be evicted: .* needs \d+ more pages; \d+ of", line)
        assert server.end(signal.SIGINT) == 0
        assert "system prompt" not in server.said.partition("requests at once")[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_cleanly(number: int) -> None:
    with started() as server:
        server.wait_ready()
        assert server.end(number) == 0
        assert server.is_gone()
        assert "Traceback" not in server.said


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the engine through /proc")
def test_starts_the_engine_again_when_it_dies() -> None:
    with started() as server:
        address = server.wait_ready()
        first = server.engine()
        os.kill(first, signal.SIGKILL)
        give_up = time.monotonic() + PATIENCE_SECONDS
        for expected in (503, 200):
            while status(address, "/ready") != expected:
                assert time.monotonic() < give_up
                time.sleep(0.02)
        assert status(address, "/health") == 200
        assert server.engine() != first
        assert ask(address, 2)[0] == 200
        assert server.end(signal.SIGTERM) == 0
        assert "banyan: the engine ended unexpectedly; starting it again" in server.said
        assert "Traceback" not in server.said and server.is_gone()


def status(address: str, path: str) -> int:
    try:
        return get(address, path)[0]
    except urllib.error.HTTPError as error:
        return error.code


def ask(address: str, tokens: int) -> tuple[int, dict[str, object]]:
    """A response over HTTP of exactly so many tokens, if it is let."""
    body = {"input": "Hello", "max_output_tokens": tokens, "ignore_eos": True}
    asked = urllib.request.Request(
        f"http://{address}/v1/responses", json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return answer.status, json.loads(answer.read())


async def open_streams(address: str, count: int, tokens: int) -> list[ClientConnection]:
    """Sockets on each of which an answer of so many tokens has begun."""
    sockets = []
    for _ in range(count):
        socket = await connect(f"ws://{address}/v1/responses")
        event = {"type": "response.create", "input": "Hello", "max_output_tokens": tokens, "ignore_eos": True}
        await socket.send(json.dumps(event))
        sockets.append(socket)
    for socket in sockets:
        while json.loads(await socket.recv())["type"] != "response.output_text.delta":
            pass
    return sockets


async def last_words(socket: ClientConnection) -> tuple[dict[str, object], int | None]:
    """The last event of a socket, and the code it was closed with."""
    event: dict[str, object] = {}
    with contextlib.suppress(ConnectionClosed):
        while True:
            event = json.loads(await socket.recv())
    return event, socket.close_code


@pytest.mark.parametrize(("tokens", "seconds"), [(60, "30"), (3000, "1")])
async def test_drains(tokens: int, seconds: str) -> None:
    """What is open completes, or is told that it is incomplete; meanwhile nothing new is taken."""
    with started("--drain-seconds", seconds) as server:
        address = await asyncio.to_thread(server.wait_ready)
        sockets = await open_streams(address, 50, tokens)
        idle = await connect(f"ws://{address}/v1/responses")
        os.killpg(server.process.pid, signal.SIGTERM)  # to the engine as well, as supervisors and terminals do
        await asyncio.sleep(0.1)
        assert await asyncio.to_thread(status, address, "/ready") == 503
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{address}/v1/responses")
        assert refused.value.response.status_code == 503
        assert (await last_words(idle))[1] == 1012
        for event, code in await asyncio.gather(*map(last_words, sockets)):
            assert event["type"] == "response.incomplete"
            reason = event["response"]["incomplete_details"]["reason"]  # type: ignore[index]
            assert reason == ("max_output_tokens" if tokens == 60 else "server_draining")
            assert code == 1012
        assert await asyncio.to_thread(server.process.wait, PATIENCE_SECONDS) == 0
        assert server.is_gone()


async def test_a_second_signal_aborts() -> None:
    with started("--drain-seconds", "600") as server:
        address = await asyncio.to_thread(server.wait_ready)
        (socket,) = await open_streams(address, 1, 3500)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, PATIENCE_SECONDS) == 1, "not after the 600 s of a drain"
        assert server.is_gone()
        await last_words(socket)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-folder"], ["MODEL 'no-such-folder'", "org/name"]),
        (["--host", "0.0.0.0"], ["loopback", "banyan tenant add", "SSH tunnel"]),
        (["--port", "x"], ["--port: ", "65535"]),
        (["--config", "missing.toml"], ["--config", "missing.toml"]),
        (["--kv-memory", "1MiB", "--page-size", "256", "--dtype", "float32"], ["page"]),
    ],
)
def test_start_errors_are_one_line(arguments: list[str], words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *arguments]) == 1
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    line = next(line for line in shown.splitlines() if line.startswith("banyan: "))
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "without tenants and their keys"),
        (["--database", "mysql://nowhere"], "a URL such as postgresql://"),
    ],
)
def test_what_is_wrong_beside_a_loading_engine_ends_it(arguments: list[str], words: str, tmp_path: Path) -> None:
    """Both are found when the engine's process runs already."""
    with started(*arguments, "--data-dir", str(tmp_path)) as server:
        assert server.process.stderr is not None
        said = server.process.stderr.read()
        assert server.process.wait(PATIENCE_SECONDS) == 1
        assert words in said and "Traceback" not in said
        assert server.is_gone()


def test_engine_says_why_it_cannot_load(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["NoSuchForCausalLM"], "model_type": "nosuch"}')
    assert main(["serve", "--port", "0", str(tmp_path)]) == 1
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    assert "banyan: " in shown


async def test_interrupted_while_loading() -> None:
    """An engine that never says that it is ready is ended."""
    ours, theirs = socket.socketpair()
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    child = EngineChild(sleeping, ours)
    asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGTERM)
    found = checkpoint.Checkpoint(Path("/nowhere"), "m")
    with theirs, contextlib.closing(serve.take_port("127.0.0.1", 0)) as listener:
        console = Console(file=io.StringIO())
        assert await starting.serve(config.resolve({}, {}), found, listener, child, console, Tenancy(None)) == 0
    assert sleeping.returncode == -signal.SIGKILL


def test_engine_options_carry_the_settings() -> None:
    given = {"kv_memory": "2MiB", "page_size": "8", "max_running": "3", "threads": "2", "dtype": "float16"}
    options = serve.engine_options(config.resolve(given, {}), Path("/m"))
    assert options == EngineOptions("/m", "float16", kv_memory=2**21, page_size=8, max_running=3, threads=2)
    given = {"max_waiting": "4", "max_step_tokens": "90", "inter_token_ms": "7", "overlap": "off", "arm": "paged"}
    given["isolation_ms"] = "3"
    options = serve.engine_options(config.resolve(given, {}), Path("/m"))
    assert options == EngineOptions(
        "/m", max_waiting=4, max_step_tokens=90, inter_token_ms=7.0, isolation_ms=3.0, overlap=False, arm="paged"
    )


def test_defaults_are_the_engines() -> None:
    assert serve.engine_options(config.resolve({}, {}), Path("/m")) == EngineOptions("/m")


def test_the_engines_queue_is_full_before_the_servers() -> None:
    for waiting in (1, 1024, 50_000):
        options = config.resolve({"max_waiting": str(waiting)}, {})
        assert serving.server_limits(options).open_requests > options.max_waiting + options.max_running


def test_ready_line_names_address_model_and_cache() -> None:
    info = EngineInfo("llama", 3_300_000, 2560, 4096, 16, 1024, 64, "float32", "cpu", 2**20, 2**26)
    line = serving.ready_line("::1", 80, "org/m", info)
    for word in (
        "http://[::1]:80",
        "org/m",
        "3.3 M parameters",
        "float32 on cpu",
        "1,024 pages",
        "16,384 tokens",
        "64 MiB",
    ):
        assert word in line


def test_port_of_another_program() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(StartError, match="is taken"):
            serve.take_port("127.0.0.1", other.getsockname()[1])


def test_address_that_this_machine_does_not_have() -> None:
    with pytest.raises(StartError, match="cannot listen on 2001:db8::1"):
        serve.take_port("2001:db8::1", 0)


def test_bars_on_a_terminal() -> None:
    shown = io.StringIO()
    with LoadingBar(Console(file=shown, width=100, force_terminal=True)) as bar:
        bar.show(Loading("weights", 1, 4_000_000))
        bar.show(Loading("weights", 4_000_000, 4_000_000))
        bar.count("prompts", 2, 3)
    assert "weights" in shown.getvalue() and "4.0/4.0 MB" in shown.getvalue()
    assert "prompts" in shown.getvalue() and "2/3" in shown.getvalue() and "━" in shown.getvalue()


def test_lines_in_a_log() -> None:
    """The beginning, one every ten seconds, the end once; nothing that moves a cursor."""
    shown, now = io.StringIO(), iter((0.0, 9.9, 10.0, 11.0, 12.0))
    with LoadingBar(Console(file=shown, width=30), clock=lambda: next(now)) as bar:
        for done in (0, 1, 2, 3, 3):
            bar.show(Loading("weights of a long name", done * 1_000_000, 3_000_000))
    assert shown.getvalue().splitlines() == [f"banyan: weights of a long name: {done}.0/3.0 MB" for done in (0, 2, 3)]


def test_says_how_far_the_prompts_are() -> None:
    with started() as server:
        server.wait_ready()
        assert server.process.stderr is not None
        for line in server.process.stderr:
            if (told := re.search(r"system prompts in the cache: (\d+)/(\d+)", line)) and told[1] == told[2]:
                break
        else:
            raise AssertionError("it did not say")
        assert int(told[2]) == 2  # so many fit into the budget of pins
