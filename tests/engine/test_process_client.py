"""A real engine process: starts, answers, shares what is public, says why it cannot start, is missed when it dies."""

import asyncio
import os
import signal
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backend.engine import spawn
from backend.engine.client import tenant_settings
from backend.engine.messages import Loading, Output, Report, Snapshot, Started, Submit
from backend.engine.options import EngineOptions
from backend.engine.process_client import ProcessClient, start_engine
from backend.errors import EngineError, RequestError, StartError
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


async def settled(engine: ProcessClient) -> Report:
    """The engine's state once the steps that were in flight have come back."""
    for _ in range(500):
        report = await engine.inspect(check=True)
        if not report.load.running:
            return report
    raise AssertionError("a request still runs")


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
    report = await settled(engine)
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


async def until_warm(engine: ProcessClient, *names: str) -> Report:
    """The engine's state once it has computed these pinned prompts."""
    for _ in range(500):
        report = await engine.inspect(check=True)
        assert report.problem == ""
        if {pin.name for pin in report.pins if pin.warm} >= set(names) and not report.load.running:
            return report
        await asyncio.sleep(0.01)
    raise AssertionError(f"still cold: {report.pins}")


async def cached_of(engine: ProcessClient, request: Submit) -> int:
    """Prompt tokens that were found."""
    (cached,) = [event.cached async for event in engine.generate(request) if isinstance(event, Started)]
    return cached


async def test_what_is_published_is_found_by_every_tenant(engine: ProcessClient) -> None:
    page = engine.info.page_size
    prompt = PROMPT[: 40 * 4]
    assert await cached_of(engine, submit(engine, tenant="a")) == 0
    assert await cached_of(engine, submit(engine, tenant="b")) == 0  # a's pages are a's
    await engine.publish_prompt("bakery", prompt)
    report = await until_warm(engine, "bakery")
    (pin,) = report.pins
    assert (pin.name, pin.hard, pin.pages) == ("bakery", False, 40 // page)
    assert (report.load.pages_pinned, report.load.pages_pinned_hard) == (40 // page, 0)
    request = submit(engine, tenant="c", system_tokens=40, history_tokens=45)
    assert await cached_of(engine, request) == 40 // page * page
    load = (await settled(engine)).load
    hits, misses = load.hits, load.misses
    assert (hits.system, hits.history, hits.shared) == (40 // page * page, 0, 0)
    assert (misses.system, misses.history) == (40 - 40 // page * page, 5)
    engine.withdraw_prompt("bakery", prompt)
    assert await cached_of(engine, submit(engine, tenant="d")) == 0
    assert (await settled(engine)).pins == []


async def test_the_engine_says_why_a_prompt_cannot_be_published(engine: ProcessClient) -> None:
    """Several at once: each has the answer to its own."""
    budget = engine.info.pages // 5
    ids = [index % 300 for index in range(31 * engine.info.page_size)]
    assert 33 <= budget < 2 * 31
    wanted = {"short": [5] * 15, "bakery": [6] * 40, "long": ids, "longer": ids[1:], "hotel": [7] * 40}
    answers = await asyncio.gather(
        *(engine.publish_prompt(name, array("I", prompt).tobytes()) for name, prompt in wanted.items()),
        engine.publish_prompt("bakery", array("I", [9] * 40).tobytes(), "hard"),
        engine.publish_prompt("odd", array("I", [9] * 40).tobytes(), "firm"),
        return_exceptions=True,
    )
    short, bakery, long, longer, hotel, again, odd = answers
    assert bakery is None and long is None and hotel is None
    words = {
        "at least a page of 16 tokens, got 15": short,
        f"'longer' needs 30 more pages; 33 of the budget of {budget}": longer,
        "called 'bakery' already": again,
        "soft or hard, not 'firm'": odd,
    }
    for text, error in words.items():
        assert isinstance(error, EngineError) and text in error.message
        assert (error.code, error.status) == ("prompt_not_published", 409)
    await until_warm(engine, "bakery", "long", "hotel")
    longer_prompt = array("I", ids[1:]).tobytes()
    await engine.publish_prompt("longer", longer_prompt, pin="")
    request = Submit(engine.next_request_id(), longer_prompt, 2, Sampling(temperature=0.0), tenant="a")
    assert await cached_of(engine, request) == 30 * engine.info.page_size


def tenants_in(snapshot: Snapshot) -> set[str | None]:
    return {node.tenant for node in snapshot.nodes}


async def test_a_tenant_sees_its_own_nodes_and_public_ones(engine: ProcessClient) -> None:
    await engine.publish_prompt("bakery", array("I", [3] * 40).tobytes())
    await until_warm(engine, "bakery")
    for tenant, token in (("a", 5), ("b", 6)):
        prompt = array("I", [token] * 50).tobytes()
        await tokens_of(engine, Submit(engine.next_request_id(), prompt, 5, Sampling(temperature=0.0), tenant=tenant))
    await settled(engine)
    for tenant, token in (("a", 5), ("b", 6)):
        seen = await engine.look(tenant)
        assert tenants_in(seen) == {tenant, None} and seen.other_pages == 0
        assert {array("I", node.preview)[0] for node in seen.nodes if node.depth_tokens == 0} == {3, token}
        assert [node.pinned for node in seen.nodes if node.tenant is None] == ["soft"]
    assert tenants_in(await engine.look("nobody")) == {None}
    whole = await engine.look("admin", everything=True)
    assert tenants_in(whole) == {"a", "b", None}
    assert all(not node.preview for node in whole.nodes if node.tenant is not None)  # what others wrote stays theirs
    few = await engine.look("admin", everything=True, limit=1)
    assert len(few.nodes) == 1 and few.hidden_pages > 0


async def test_a_quota_refuses_what_it_can_never_hold(engine: ProcessClient) -> None:
    engine.set_tenant("a", weight=2.0, page_limit=3)
    _, last = await tokens_of(engine, submit(engine, tenant="a"))
    assert (last.finish, last.code, last.retry_after_s) == ("error", "quota_exceeded", 0.0)
    assert "need 4 KV pages; tenant 'a' may have 3" in last.message
    assert (await tokens_of(engine, submit(engine, tenant="b")))[1].finish == "length"
    (account,) = [tenant for tenant in (await engine.inspect()).tenants if tenant.tenant == "a"]
    assert (account.limit, account.watermark) == (3, 2)
    engine.set_tenant("a", page_limit=4)
    assert (await tokens_of(engine, submit(engine, 90, tenant="a")))[1].code == "quota_exceeded"
    assert (await tokens_of(engine, submit(engine, 90, tenant="a", open_ended=True)))[1].finish == "length"
    engine.set_tenant("a")
    assert (await tokens_of(engine, submit(engine, tenant="a")))[1].finish == "length"


async def test_a_lower_quota_ends_what_cannot_go_on(engine: ProcessClient) -> None:
    events = aiter(engine.generate(submit(engine, 200, tenant="a")))
    await anext(events)
    engine.set_tenant("a", page_limit=1)
    async with asyncio.timeout(20):
        last = [event async for event in events][-1]
    assert isinstance(last, Output) and (last.finish, last.code) == ("error", "quota_exceeded")
    assert "tenant 'a' may have no more than 1 now" in last.message


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"tenant": "\0public"}, "tenant"),
        ({"weight": 0.0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"page_limit": -1}, "page_limit"),
        ({"page_limit": 5, "page_watermark": 6}, "page_watermark"),
        ({"page_watermark": 1}, "page_watermark"),
    ],
)
async def test_wrong_settings_of_a_tenant_are_refused(settings: dict, param: str) -> None:
    values = {"tenant": "a", "weight": 1.0, "page_limit": 0, "page_watermark": 0} | settings
    with pytest.raises(RequestError) as caught:
        tenant_settings(**values)
    assert caught.value.param == param


async def test_a_full_queue_says_when_to_come_again(checkpoint: Path) -> None:
    client = await start_engine(options(checkpoint, max_running=1, max_waiting=1))
    try:
        long = client.generate(submit(client, max_tokens=60))
        assert isinstance(await anext(aiter(long)), Started)
        endings = await asyncio.gather(*(tokens_of(client, submit(client, max_tokens=2)) for _ in range(3)))
        refused = [last for _, last in endings if last.finish == "error"]
        assert len(refused) == 2
        assert all(last.code == "server_overloaded" and last.retry_after_s >= 1.0 for last in refused)
    finally:
        await client.close()


async def test_every_arm_gives_the_same_tokens(checkpoint: Path) -> None:
    seen: set[tuple[int, ...]] = set()
    for arm, overlap in (("shared", False), ("static", True)):
        client = await start_engine(options(checkpoint, arm=arm, overlap=overlap, max_running=4, inter_token_ms=20.0))
        try:
            answers = await asyncio.gather(*(tokens_of(client, submit(client)) for _ in range(6)))
            assert {last.finish for _, last in answers} == {"length"}
            seen |= {tuple(tokens) for tokens, _ in answers}
            report = await settled(client)
            assert report.problem == "" and (report.load.cached_tokens > 0) == (arm == "shared")
        finally:
            await client.close()
    assert len(seen) == 1


async def test_every_question_ends_when_the_engine_dies(checkpoint: Path) -> None:
    client = await start_engine(options(checkpoint))
    os.kill(client.process.pid, signal.SIGSTOP)  # so that none of them is answered
    asked = [
        asyncio.create_task(question)
        for question in (
            client.inspect(),
            client.publish_prompt("bakery", PROMPT),
            client.publish_prompt("hotel", PROMPT),
            client.look("a"),
        )
    ]
    await asyncio.sleep(0.05)
    asked[1].cancel()  # whoever no longer waits is in nobody's way
    os.kill(client.process.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers.pop(1), asyncio.CancelledError)
    assert all(isinstance(answer, EngineError) and answer.status == 503 for answer in answers)
    for late in (client.inspect(), client.publish_prompt("x", PROMPT), client.look("a")):
        with pytest.raises(EngineError):
            await late
    with pytest.raises(EngineError):
        client.set_tenant("a")
    with pytest.raises(EngineError):
        client.withdraw_prompt("x", PROMPT)
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
    assert await asyncio.to_thread(client.process.wait, 10) == 0


def test_threads_of_the_engine_sleep_soon_unless_somebody_says_otherwise(monkeypatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert spawn._environment()["GOMP_SPINCOUNT"] == spawn.SPIN_COUNT
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert spawn._environment()["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in spawn._environment()
