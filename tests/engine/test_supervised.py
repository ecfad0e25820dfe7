"""An engine that is killed, or stands still, is started again; what it was told is told to the new one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from backend.engine import supervised
from backend.engine.messages import Output
from backend.engine.process_client import start_engine
from backend.engine.supervised import SupervisedEngine
from backend.errors import EngineError, StartError
from tests.engine.test_process_client import PROMPT, checkpoint, options, submit, tokens_of

__all__ = ["checkpoint"]


@pytest_asyncio.fixture
async def engine(checkpoint: Path) -> AsyncIterator[SupervisedEngine]:
    wanted = options(checkpoint)
    first = await start_engine(wanted)
    engine = SupervisedEngine(first, partial(start_engine, wanted))
    yield engine
    await engine.close()


async def back(engine: SupervisedEngine, restarts: int = 1) -> None:
    async with asyncio.timeout(60):
        while engine.restarts < restarts or not engine.alive:
            await asyncio.sleep(0.02)


def pid(engine: SupervisedEngine) -> int:
    return engine._client.process.pid


async def test_a_killed_engine_comes_back_and_knows_what_the_old_one_was_told(engine: SupervisedEngine) -> None:
    engine.set_tenant("one", 2.0, 1)
    await engine.publish_prompt("p", PROMPT)
    before, _ = await tokens_of(engine, submit(engine))  # type: ignore[arg-type]
    open_one = aiter(engine.generate(submit(engine, 200)))
    await anext(open_one)
    os.kill(pid(engine), signal.SIGKILL)
    events = [event async for event in open_one]
    assert isinstance(events[-1], Output) and (events[-1].finish, events[-1].code) == ("error", "engine_error")
    assert not engine.alive
    with pytest.raises(EngineError):
        engine.generate(submit(engine))
    await back(engine)
    assert (await tokens_of(engine, submit(engine)))[0] == before  # type: ignore[arg-type]
    report = await engine.inspect(check=True)
    assert [pin.name for pin in report.pins] == ["p"] and report.problem == ""
    _, refused = await tokens_of(engine, submit(engine, tenant="one"))  # type: ignore[arg-type]
    assert refused.code == "quota_exceeded"
    ids = {engine.next_request_id() for _ in range(3)}
    assert len(ids) == 3


async def test_an_engine_that_stands_still_is_noticed(engine: SupervisedEngine) -> None:
    assert supervised.SILENT_SECONDS + supervised.PING_SECONDS < 10
    open_one = aiter(engine.generate(submit(engine, 200)))
    await anext(open_one)
    first = pid(engine)
    os.kill(first, signal.SIGSTOP)
    async with asyncio.timeout(10):
        events = [event async for event in open_one]
    assert isinstance(events[-1], Output) and events[-1].finish == "error"
    await back(engine)
    assert pid(engine) != first


async def test_an_engine_that_works_is_left_alone(checkpoint: Path) -> None:
    wanted = options(checkpoint)
    engine = SupervisedEngine(await start_engine(wanted), partial(start_engine, wanted), silent_s=2.0)
    try:
        for _ in range(8):
            await tokens_of(engine, submit(engine, 100))  # type: ignore[arg-type]
            await asyncio.sleep(0.3)
        assert engine.restarts == 0 and engine.alive
    finally:
        await engine.close()


async def test_a_step_that_does_not_end_is_noticed(checkpoint: Path) -> None:
    """With no patience at all every step takes too long."""
    wanted = options(checkpoint)
    engine = SupervisedEngine(await start_engine(wanted), partial(start_engine, wanted), stuck_s=0.0)
    try:
        async with asyncio.timeout(30):
            while not engine.restarts:
                if engine.alive:
                    await asyncio.gather(*(tokens_of(engine, submit(engine, 200)) for _ in range(4)))  # type: ignore[arg-type]
                await asyncio.sleep(0.01)
    except EngineError:
        pass
    finally:
        await back(engine)
        await engine.close()


async def test_gives_up_in_the_end(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "DELAYS_SECONDS", (0.0, 0.01))
    said: list[str] = []

    async def fails() -> None:
        raise StartError("no memory")

    engine = SupervisedEngine(await start_engine(options(checkpoint)), fails, said.append)  # type: ignore[arg-type]
    os.kill(pid(engine), signal.SIGKILL)
    async with asyncio.timeout(20):
        await engine.given_up.wait()
    assert sum("no memory" in text for text in said) == 2 and "after 2 attempts" in said[-1]
    await engine.close()
