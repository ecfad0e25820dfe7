"""A service over a fake engine, and the real server on a free port."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from backend.server.app import create_app
from backend.server.limits import Limits
from backend.server.listening import bound_send_buffers
from backend.server.prompts import PromptRegistry
from backend.server.run import uvicorn_config
from backend.server.service import ChatService
from backend.text.tokenizer import TextTokenizer
from tests.server.fake_app import BAKERY
from tests.server.fake_engine import FakeEngine
from tests.server.model_folder import make_model_folder

ANSWER = "A croissant costs three euros 🙂 in the morning."


class House:
    """A running server: its address, its service and its engine."""

    def __init__(self, service: ChatService, engine: FakeEngine, tokenizer: TextTokenizer, port: int = 0) -> None:
        self.service = service
        self.engine = engine
        self.tokenizer = tokenizer
        self.port = port
        self.app = Starlette()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/responses"

    def answers(self, text: str) -> None:
        """From now on the engine says ``text``, then the end of its turn, for ever."""
        ids = self.tokenizer.encode_plain(text)
        end = self.tokenizer.library.token_to_id("<|im_end|>")
        self.engine.answer = lambda prompt: itertools.chain(ids, itertools.repeat(end))

    def never_ends(self) -> None:
        """From now on the engine goes on until it is cancelled, one token a millisecond."""
        ids = self.tokenizer.encode_plain(" croissant")
        self.engine.seconds_per_token = 0.001
        self.engine.answer = lambda prompt: itertools.cycle(ids)

    async def until_idle(self) -> None:
        """Wait until no request is left, in the engine and in the service."""
        async with asyncio.timeout(20):
            while self.engine.open or self.service.open_requests:
                await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> TextTokenizer:
    return TextTokenizer.load(folder)


def make_house(folder: Path, tokenizer: TextTokenizer, limits: Limits | None = None) -> House:
    engine = FakeEngine(lambda prompt: (), vocab_size=tokenizer.vocab_size, max_context=1024)
    service = ChatService(engine, folder, "small", PromptRegistry([BAKERY]), limits)
    house = House(service, engine, tokenizer)
    house.answers(ANSWER)
    return house


@pytest.fixture
def quiet_house(folder: Path, tokenizer: TextTokenizer) -> Iterator[House]:
    """A service that nobody listens for."""
    yield make_house(folder, tokenizer)


@contextlib.asynccontextmanager
async def running(house: House, ui: Path, wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> AsyncIterator[House]:
    """The real server around ``house``, on a free port; ``wrap`` puts something around the app."""
    house.app = create_app(house.service, ui)
    async with serve(house, wrap(house.app)):
        yield house


@contextlib.asynccontextmanager
async def serve(house: House, app: ASGIApp, ping_seconds: float | None = None) -> AsyncIterator[None]:
    """``app`` on a free port, which ``house`` is told; ``ping_seconds``: other than the server's own."""
    config = uvicorn_config(app, "127.0.0.1", 0, log_level="warning")
    if ping_seconds is not None:
        config.ws_ping_interval = config.ws_ping_timeout = ping_seconds
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        bound_send_buffers(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        house.port = listener.getsockname()[1]
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        yield
        server.should_exit = True
        await task


@pytest.fixture
async def house(folder: Path, tokenizer: TextTokenizer, tmp_path: Path) -> AsyncIterator[House]:
    """The real server; the UI is not built."""
    limits = Limits(open_requests=50, send_queue_bytes=1 << 17)
    async with running(make_house(folder, tokenizer, limits), tmp_path) as house:
        yield house
