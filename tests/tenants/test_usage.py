"""Usage: records and their sums by hour agree, nothing is written twice or by half; on both databases."""

import threading
from array import array

import pytest

from backend.tenants.conversation_store import KEPT_SECONDS, ConversationStore, StoredResponse
from backend.tenants.database import Database
from backend.tenants.errors import DatabaseError
from backend.tenants.tenant_store import TenantStore
from backend.tenants.usage_store import UsageRecord, UsageStore
from backend.tenants.usage_writer import UsageWriter
from tests.tenants.conftest import Clock

HOUR = 1_800_000_000


def record(number: int = 0, at: int = HOUR, tenant: str = "a", key: str = "k", tokens: int = 10) -> UsageRecord:
    return UsageRecord(f"{number:032x}", at, tenant, key, "p@1", tokens, tokens // 2, 3, tokens, 12.5, "stop")


def test_hours_are_the_sums_of_records(database: Database) -> None:
    store = UsageStore(database)
    store.write([record(1), record(2, HOUR + 3599), record(3, HOUR + 3600), record(4, tenant="b")])
    store.write([record(5, key="k2")])
    hours = store.hours("a", HOUR, HOUR + 7200)
    assert [(h.key_id, h.hour, h.requests, h.input_tokens, h.cached_tokens, h.output_tokens) for h in hours] == [
        ("k", HOUR + 3600, 1, 10, 5, 3),
        ("k", HOUR, 2, 20, 10, 6),
        ("k2", HOUR, 1, 10, 5, 3),
    ]
    (total,) = store.total("a", HOUR, HOUR + 7200)
    assert (total.requests, total.charged_tokens) == (4, 40)
    assert [t.tenant for t in store.total(None, HOUR, HOUR + 7200)] == ["a", "b"]
    assert store.charged("a", HOUR + 3600) == 10 and store.charged("c", 0) == 0
    assert len(store.records("a")) == 4 and store.records("a")[0].at == HOUR + 3600


def test_writing_again_counts_once(database: Database) -> None:
    store = UsageStore(database)
    store.write([record(1), record(2)])
    store.write([record(2), record(3)])
    assert store.total("a", HOUR, HOUR + 1)[0].requests == 3


def test_two_writers_at_once(database: Database) -> None:
    stores = [UsageStore(database) for _ in range(4)]

    def write(store: UsageStore, first: int) -> None:
        for number in range(first, first + 20):
            store.write([record(number), record(number + 1000, key="k2")])

    threads = [threading.Thread(target=write, args=(store, 100 * i)) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {h.key_id: h.requests for h in stores[0].hours("a", HOUR, HOUR + 1)} == {"k": 80, "k2": 80}


class Flaky:
    """Takes records or fails."""

    def __init__(self) -> None:
        self.failing = False
        self.batches: list[list[UsageRecord]] = []

    def write(self, records: list[UsageRecord]) -> None:
        if self.failing:
            raise DatabaseError("gone")
        self.batches.append(records)


def test_the_writer_keeps_what_the_database_does_not_take() -> None:
    flaky = Flaky()
    writer = UsageWriter(flaky.write, most=5, batch=2)
    flaky.failing = True
    for number in range(7):
        writer.put(record(number))
    assert not writer.flush() and (writer.waiting, writer.lost) == (5, 2)
    flaky.failing = False
    assert writer.flush() and writer.waiting == 0
    assert [r.id for batch in flaky.batches for r in batch] == [record(n).id for n in range(5)]
    assert [len(batch) for batch in flaky.batches] == [2, 2, 1]


def test_the_writer_says_what_is_lost_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky()
    flaky.failing = True
    writer = UsageWriter(flaky.write)
    writer.start()
    writer.put(record())
    writer.close()
    assert writer.lost == 1 and "1 usage records are lost" in caplog.text


def test_the_writer_writes_behind_ones_back(sqlite: Database) -> None:
    writer = UsageWriter(UsageStore(sqlite).write, every_seconds=0.01)
    writer.start()
    for number in range(50):
        writer.put(record(number))
    writer.close()
    assert UsageStore(sqlite).total("a", HOUR, HOUR + 1)[0].requests == 50 and writer.lost == 0


# ---- stored conversations --------------------------------------------------------------------------------------------


def response(name: str = "resp_1", previous: str | None = None) -> StoredResponse:
    messages = ({"role": "user", "content": "Hi \0 🙂"}, {"role": "assistant", "content": "Hello"})
    return StoredResponse(name, previous, array("I", [1, 2, 2**32 - 1]), messages, 2, 1, '{"id": "x"}')


def test_a_response_comes_back_exactly(database: Database, clock: Clock) -> None:
    store = ConversationStore(database, clock)
    store.save("a", response("resp_2", "resp_1"))
    found = store.load("a", "resp_2")
    assert found is not None
    assert (found.previous_id, found.ids, found.answered, found.system_tokens, found.body) == (
        "resp_1",
        array("I", [1, 2, 2**32 - 1]),
        2,
        1,
        '{"id": "x"}',
    )
    assert found.messages == response().messages
    assert (found.created, found.expires) == (int(clock.now), int(clock.now) + KEPT_SECONDS)
    store.save("a", response("resp_2"))
    again = store.load("a", "resp_2")
    assert again is not None and again.previous_id is None


def test_responses_are_their_tenants_alone(database: Database, clock: Clock) -> None:
    store = ConversationStore(database, clock)
    store.save("a", response())
    assert store.load("b", "resp_1") is None and not store.delete("b", "resp_1")
    assert store.load("a", "resp_1") is not None
    assert store.load("a", "resp_1\0") is None and not store.delete("a", "resp_1\0")
    assert store.load("a", "resp_") is None and store.load("a", "resp_1x") is None
    assert store.delete("a", "resp_1") and store.load("a", "resp_1") is None


def test_responses_expire(database: Database, clock: Clock) -> None:
    store = ConversationStore(database, clock)
    store.save("a", response())
    clock.now += KEPT_SECONDS
    assert store.load("a", "resp_1") is None
    assert store.expire() == 1 and store.expire() == 0


def test_removing_a_tenant_takes_its_responses(database: Database, clock: Clock) -> None:
    store = ConversationStore(database, clock)
    TenantStore(database).add("a", actor="t")
    store.save("a", response())
    store.save("b", response())
    TenantStore(database).remove("a", actor="t")
    assert store.load("a", "resp_1") is None and store.load("b", "resp_1") is not None
