"""A real engine process: starts, answers, says why it cannot start, and is missed when it dies."""

import asyncio
import os
import signal
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backend.engine.messages import Loading, Output, Started, Submit
from backend.engine.options import EngineOptions
from backend.engine.process_client import ProcessClient, start_engine
from backend.errors import EngineError, StartError
from scheduler.plan import Sampling
from tests.models.checkpoints import Case, save

CASE = Case("llama-g2-d64", "llama", 4, 2, 64, 331)
PROMPT = array("I", range(50)).tobytes()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save(CASE, folder)
    return folder


def options(checkpoint: Path, **fields: object) -> EngineOptions:
    return EngineOptions(model=str(checkpoint), kv_memory=8 << 20, threads=1, **fields)  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def engine(checkpoint: Path) -> AsyncIterator[ProcessClient]:
    client = await start_engine(options(checkpoint))
    yield client
    await client.close()


def submit(client: ProcessClient, max_tokens: int = 5, **fields: object) -> Submit:
    return Submit(client.next_request_id(), PROMPT, max_tokens, Sampling(temperature=0.0), **fields)  # type: ignore[arg-type]


async def tokens_of(client: ProcessClient, request: Submit) -> tuple[list[int], Output]:
    tokens: list[int] = []
    last = None
    async for event in client.generate(request):
        if isinstance(event, Output):
            tokens += event.tokens
            last = event
    assert last is not None
    return tokens, last


async def test_loading_is_reported_and_info_is_true(checkpoint: Path) -> None:
    seen: list[Loading] = []
    client = await start_engine(options(checkpoint, page_size=8), seen.append)
    try:
        assert seen[-1].done == seen[-1].total > 0
        info = client.info
        assert (info.architecture, info.vocab_size, info.page_size) == ("llama", 331, 8)
        assert info.pages * info.page_size >= info.max_context
        assert client.alive
    finally:
        await client.close()
    assert not client.alive
    assert client.process.returncode == 0


async def test_generations_side_by_side(engine: ProcessClient) -> None:
    alone, last = await tokens_of(engine, submit(engine))
    assert (len(alone), last.finish) == (5, "length")
    together = await asyncio.gather(*(tokens_of(engine, submit(engine)) for _ in range(6)))
    assert [tokens for tokens, _ in together] == [alone] * 6
    report = await engine.inspect(check=True)
    assert (report.problem, report.load.running, report.load.pages_private) == ("", 0, 0)
    assert report.load.cached_tokens > 0


async def test_started_comes_first(engine: ProcessClient) -> None:
    events = [event async for event in engine.generate(submit(engine))]
    assert isinstance(events[0], Started)
    assert all(isinstance(event, Output) for event in events[1:])


async def test_cancel_ends_iteration_and_frees_everything(engine: ProcessClient) -> None:
    generation = engine.generate(submit(engine, max_tokens=400))
    async for event in generation:
        if isinstance(event, Output):
            generation.cancel()
            generation.cancel()
    report = await engine.inspect(check=True)
    assert (report.problem, report.load.running, report.load.pages_private) == ("", 0, 0)
    assert report.load.pages_cached > 0


async def test_deadline(engine: ProcessClient) -> None:
    _, last = await tokens_of(engine, submit(engine, max_tokens=400, seconds=0.02))
    assert last.finish == "deadline"


async def test_a_bad_request_fails_alone(engine: ProcessClient) -> None:
    _, last = await tokens_of(engine, submit(engine, max_tokens=100_000))
    assert (last.finish, last.code) == ("error", "context_length_exceeded")
    outside = Submit(engine.next_request_id(), array("I", [5, 4_000_000]).tobytes(), 5, Sampling(temperature=0.0))
    _, last = await tokens_of(engine, outside)
    assert last.finish == "error"
    assert "4000000" in last.message
    tokens, _ = await tokens_of(engine, submit(engine))
    assert len(tokens) == 5


async def test_a_killed_engine_ends_open_requests_with_an_error(checkpoint: Path) -> None:
    client = await start_engine(options(checkpoint))
    outputs = []
    async for event in client.generate(submit(client, max_tokens=400)):
        outputs.append(event)
        if len(outputs) == 3:
            os.kill(client.process.pid, signal.SIGKILL)
    last = outputs[-1]
    assert isinstance(last, Output)
    assert (last.finish, last.code) == ("error", "engine_error")
    assert not client.alive
    with pytest.raises(EngineError):
        client.generate(submit(client))
    await client.close()


@pytest.mark.parametrize(
    ("folder", "fields", "named"),
    [
        ("missing", {}, "missing"),
        (None, {"dtype": "int3"}, "int3"),
        (None, {"kv_memory": 10}, "kv-memory"),
    ],
)
async def test_why_it_cannot_start(checkpoint: Path, folder: str | None, fields: dict, named: str) -> None:
    wanted = {"model": str(checkpoint / folder if folder else checkpoint), "kv_memory": 8 << 20, "threads": 1} | fields
    with pytest.raises(StartError, match=named):
        await start_engine(EngineOptions(**wanted))


async def test_the_engine_ends_when_its_server_is_gone(checkpoint: Path) -> None:
    client = await start_engine(options(checkpoint))
    client._writer.close()
    assert await asyncio.wait_for(client.process.wait(), 10) == 0
