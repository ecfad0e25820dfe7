"""Limits, budgets and usage over a real server."""

import asyncio
import contextlib
import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from backend.server.identity import LOCAL
from backend.server.tenancy import Tenancy
from backend.tenants.database import open_database
from backend.tenants.errors import DatabaseError
from backend.tenants.usage_store import UsageRecord
from backend.text.conversation import Prompt
from tests.server.tenants.conftest import CHAT, Walled, ask, events_until, until


async def limit(walled: Walled, tenant: str, **limits: object) -> None:
    walled.tenancy.tenants.change(tenant, {"limits": limits}, actor="test")
    await walled.tenancy.look()


async def test_requests_a_minute(walled: Walled) -> None:
    await limit(walled, "a", requests_per_minute=2)
    first = await walled.ask("a")
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert (await walled.ask("a")).status_code == 200
    refused = await walled.ask("a")
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 30 and "x-should-retry" not in refused.headers
    assert (await walled.ask("b")).status_code == 200
    async with walled.connected("a") as socket:
        await socket.send(json.dumps({"type": "response.create", "input": "Hi"}))
        (error,) = await events_until(socket, "error")
        assert (error["status"], error["error"]["code"]) == (429, "rate_limit_exceeded")
    assert len(walled.engine.submitted) == 3


async def test_input_and_output_tokens_a_minute(walled: Walled) -> None:
    await limit(walled, "a", input_tokens_per_minute=5)
    refused = await walled.ask("a")
    assert refused.status_code == 413 and refused.json()["error"]["code"] == "request_too_large"
    await limit(walled, "a", input_tokens_per_minute=100, cached_weight=1)
    first = await walled.ask("a")
    left = 100 - first.json()["usage"]["prompt_tokens"]
    assert abs(int(first.headers["x-ratelimit-remaining-tokens"]) - left) <= 1
    await limit(walled, "a", input_tokens_per_minute=0, output_tokens_per_minute=2)
    assert (await walled.ask("a")).status_code == 200
    refused = await walled.ask("a")  # the answer was longer than 2 tokens: in debt
    assert refused.status_code == 429 and "output tokens" in refused.json()["error"]["message"]


async def test_requests_that_wait(walled: Walled) -> None:
    walled.engine.prefill_seconds = 0.5
    await limit(walled, "a", queued=1)
    waiting = asyncio.create_task(walled.ask("a"))
    await until(lambda: bool(walled.engine.open))
    refused = await walled.ask("a")
    assert refused.status_code == 429 and "waiting" in refused.json()["error"]["message"]
    assert (await waiting).status_code == 200 and (await walled.ask("a")).status_code == 200


def test_figures_of_tenants_are_bounded() -> None:
    tenancy = Tenancy(None)
    for number in range(250):
        record = UsageRecord("x", 0, f"t{number}", "", "", 1, 0, 1, 2, None, "stop")
        tenancy._record(record)
    (tokens,) = [metric for metric in tenancy.collect() if metric.name == "banyan:tenant_tokens"]
    assert len({sample.labels["tenant"] for sample in tokens.samples}) == 101
    assert sum(sample.value for sample in tokens.samples) == 500


async def test_a_spent_budget(walled: Walled) -> None:
    await limit(walled, "a", hard_budget_tokens=5)
    assert (await walled.ask("a")).status_code == 200
    refused = await walled.ask("a")
    assert refused.status_code == 429 and refused.headers["x-should-retry"] == "false"
    assert refused.json()["error"]["code"] == refused.json()["error"]["type"] == "insufficient_quota"


async def test_budgets_survive_a_restart(walled: Walled, folder: Path) -> None:
    await limit(walled, "a", hard_budget_tokens=5)
    assert (await walled.ask("a")).status_code == 200
    await until(lambda: bool(walled.tenancy.usage.records("a")))
    assert walled.tenancy.database is not None
    again = Tenancy(open_database(walled.tenancy.database.engine.url))
    await again.start()
    assert again.limiter.spent("a", again.wall()) == walled.tenancy.limiter.spent("a", again.wall()) >= 5
    await again.close()


async def test_streams_at_once(walled: Walled) -> None:
    walled.never_ends()
    await limit(walled, "a", streams=1)
    async with walled.client("a") as client, client.stream("POST", CHAT, json=ask(stream=True)):
        refused = await walled.ask("a")
        assert refused.status_code == 429 and "in flight" in refused.json()["error"]["message"]
    await walled.until_idle()
    walled.answers("Yes.")
    assert (await walled.ask("a")).status_code == 200


async def test_answers_that_may_not_begin_cost_nothing(walled: Walled) -> None:
    walled.engine.prefill_seconds = 0.2
    await limit(walled, "a", streams=1, input_tokens_per_minute=100, cached_weight=1)
    assert (await walled.ask("a", n=2)).status_code == 429
    await walled.until_idle()
    left = int((await walled.ask("a", n=2)).headers["x-ratelimit-remaining-tokens"])
    assert left >= 99


async def test_sockets_of_a_key(walled: Walled) -> None:
    await limit(walled, "a", sockets_per_key=2)
    async with walled.connected("a"), walled.connected("a"):
        with pytest.raises(InvalidStatus) as caught:
            await walled.connected("a")
        response = caught.value.response
        assert response.status_code == 429 and "retry-after" in response.headers
        assert json.loads(response.body)["error"]["code"] == "websocket_connection_limit_reached"
    for _ in range(5):  # those that are gone count no more
        async with walled.connected("a"):
            pass


async def test_one_usage_record_a_request(walled: Walled) -> None:
    walled.add_key("reader", "a", "usage:read")
    await walled.tenancy.look()
    for _ in range(2):
        answer = (await walled.ask("a")).json()
    walled.never_ends()
    async with walled.client("a") as client, client.stream("POST", CHAT, json=ask(stream=True)) as response:
        await anext(response.aiter_bytes())
    await walled.until_idle()
    await until(lambda: len(walled.tenancy.usage.records("a")) == 3)
    records = {record.reason: record for record in walled.tenancy.usage.records("a")}
    assert set(records) == {"stop", "abort"}
    whole = records["stop"]
    assert whole.key_id == walled.keys["a"].key.id and whole.ttft_ms is not None
    assert whole.input_tokens == answer["usage"]["prompt_tokens"]
    assert whole.output_tokens == answer["usage"]["completion_tokens"]
    async with walled.client("reader") as client:
        shown = (await client.get("/v1/usage")).json()
        assert shown["totals"][0]["requests"] == 3 and {row["tenant"] for row in shown["data"]} == {"a"}
        assert shown["budget"]["spent_tokens"] > 0
        for query in ("since=x", "limit=0", "until=-1", "since=" + "9" * 30):
            assert (await client.get(f"/v1/usage?{query}")).status_code == 400
        assert (await client.get("/v1/usage?tenant=b")).json()["totals"][0]["tenant"] == "a"
    async with walled.client("ops") as client:
        text = (await client.get("/metrics")).text
    assert (
        f'banyan:tenant_tokens_total{{kind="output",tenant="a"}} {float(shown["totals"][0]["output_tokens"])}' in text
    )


async def test_chat_goes_on_without_the_database(walled: Walled, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not recorded yet waits; what changes is refused; all of it is said."""
    database = walled.tenancy.database
    assert database is not None

    @contextlib.contextmanager
    def gone() -> Any:
        raise DatabaseError("disk I/O error")
        yield

    monkeypatch.setattr(database, "reading", gone)
    monkeypatch.setattr(database, "writing", gone)
    await until(lambda: not walled.tenancy.directory.reachable)
    assert (await walled.ask("a")).status_code == 200
    async with walled.client("ops") as client:
        metrics = (await client.get("/metrics")).text
        assert "banyan:database_up 0.0" in metrics
        refused = await client.post("/admin/v1/tenants", json={"name": "c"})
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "database_unavailable"
        await asyncio.sleep(0.7)
        assert "banyan:usage_records_waiting 1.0" in (await client.get("/metrics")).text
        monkeypatch.undo()
        await until(lambda: walled.tenancy.directory.reachable)
        await until(lambda: len(walled.tenancy.usage.records("a")) == 1)
        assert "banyan:database_up 1.0" in (await client.get("/metrics")).text


def test_who_ends_twice_is_recorded_once() -> None:
    tenancy = Tenancy(None)
    records: list[UsageRecord] = []
    tenancy.gate.record = records.append
    tenancy.gate.admit(LOCAL, 7, Prompt(array("I", [1, 2, 3]), ()))
    meter = tenancy.gate.begin(7)
    meter.started(0)
    meter.ended(2, 1.0, "stop")
    meter.ended(2, 1.0, "abort")
    assert [(record.output_tokens, record.reason) for record in records] == [(2, "stop")]
