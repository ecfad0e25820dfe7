"""Tenants and keys: added, changed, rotated, revoked; each with its audit entry; on both databases."""

import pytest

from backend.errors import RequestError
from backend.tenants import audit, changes, keys
from backend.tenants.database import Database
from backend.tenants.limits import TenantLimits
from backend.tenants.tenant_store import LIVE_KEYS, TenantStore
from tests.tenants.conftest import Clock


@pytest.fixture
def store(database: Database, clock: Clock) -> TenantStore:
    return TenantStore(database, clock)


def test_a_tenant_comes_back_as_it_was_added(store: TenantStore) -> None:
    values = {"weight": 2.5, "page_limit": 100, "page_watermark": 80, "limits": {"streams": 3, "cached_weight": 0.5}}
    tenant = store.add("alda-1", values, actor="cli:eve")
    assert store.get("alda-1") == tenant and store.all() == [tenant]
    assert (tenant.weight, tenant.page_limit, tenant.page_watermark) == (2.5, 100, 80)
    assert tenant.limits == TenantLimits(streams=3, cached_weight=0.5)


def test_changes_keep_what_they_do_not_name(store: TenantStore) -> None:
    store.add("a", {"weight": 2, "limits": {"streams": 3}}, actor="t")
    assert store.change("a", {"limits": {"queued": 4}}, actor="t").limits == TenantLimits(streams=3, queued=4)
    assert store.get("a").weight == 2


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"weight": 0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"weight": "1"}, "weight"),
        ({"weight": True}, "weight"),
        ({"page_limit": -1}, "page_limit"),
        ({"page_limit": 2**31}, "page_limit"),
        ({"page_limit": 5, "page_watermark": 6}, "page_watermark"),
        ({"name": "b"}, "name"),
        ({"limits": {"streams": -1}}, "limits.streams"),
        ({"limits": {"streams": 10**16}}, "limits.streams"),
        ({"limits": {"streams": 1.5}}, "limits.streams"),
        ({"limits": {"cached_weight": 1.1}}, "limits.cached_weight"),
        ({"limits": {"budget_period": "year"}}, "limits.budget_period"),
        ({"limits": {"other": 1}}, "limits.other"),
        ({"limits": 3}, "limits"),
    ],
)
def test_wrong_values_are_named_and_change_nothing(sqlite: Database, values: dict, param: str) -> None:
    store = TenantStore(sqlite)
    store.add("a", actor="t")
    before = store.get("a")
    with pytest.raises(RequestError) as caught:
        store.change("a", values, actor="t")
    assert caught.value.param == param and store.get("a") == before


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a" * 64, "local", "a/b", "ä", "a\n", "a\0"])
def test_wrong_names(sqlite: Database, name: str) -> None:
    with pytest.raises(RequestError):
        TenantStore(sqlite).add(name, actor="t")


def test_a_name_is_given_once(store: TenantStore) -> None:
    store.add("a", actor="t")
    with pytest.raises(RequestError) as caught:
        store.add("a", actor="t")
    assert caught.value.status == 409


def test_unknown_ones_are_404(store: TenantStore) -> None:
    acts = [
        lambda: store.get("x"),
        lambda: store.get("x\0y"),
        lambda: store.get("x" * 10_000),
        lambda: store.revoke_key("key\0", actor="t"),
        lambda: store.change("x", {}, actor="t"),
        lambda: store.remove("x", actor="t"),
        lambda: store.add_key("x", actor="t"),
        lambda: store.keys("x"),
        lambda: store.revoke_key("key_x", actor="t"),
        lambda: store.rotate_key("key_x", actor="t"),
    ]
    for act in acts:
        with pytest.raises(RequestError) as caught:
            act()
        assert caught.value.status == 404


def test_the_key_itself_is_kept_nowhere(store: TenantStore, database: Database) -> None:
    store.add("a", actor="t")
    new = store.add_key("a", actor="t", scopes=["chat"], label="app", namespace="n1")
    assert keys.tenant_of(new.secret) == "a"
    assert len(new.secret) == len("sk-a-") + 64
    (kept,) = store.keys("a")
    assert kept == new.key and kept.hash == keys.hash_of(new.secret)
    with database.reading() as connection:
        from backend.tenants.schema import metadata

        for table in metadata.sorted_tables:
            for row in connection.execute(table.select()):
                assert new.secret not in repr(tuple(row)) and new.secret[5:-4] not in repr(tuple(row))


def test_at_most_two_live_keys_unless_said_otherwise(store: TenantStore, clock: Clock) -> None:
    store.add("a", actor="t")
    first = store.add_key("a", actor="t", expires=int(clock.now) + 10)
    store.add_key("a", actor="t")
    with pytest.raises(RequestError) as caught:
        store.add_key("a", actor="t")
    assert caught.value.code == "too_many_keys" and first.key.id in caught.value.message
    store.add_key("a", actor="t", live_keys=LIVE_KEYS + 1)
    with pytest.raises(RequestError):
        store.add_key("a", actor="t")
    clock.now += 11
    live = [key for key in store.keys("a") if key.is_live(clock.now)]
    store.revoke_key(live[0].id, actor="t")
    store.add_key("a", actor="t")


def test_rotation_leaves_the_old_key_for_a_while(store: TenantStore, clock: Clock) -> None:
    store.add("a", actor="t")
    old = store.add_key("a", actor="t", scopes=["chat", "admin"], label="l", namespace="n")
    new = store.rotate_key(old.key.id, actor="t", grace_seconds=60)
    assert (new.key.scopes, new.key.label, new.key.namespace) == (old.key.scopes, "l", "n")
    live = {key.id for key in store.keys("a") if key.is_live(clock.now + 59)}
    assert live == {old.key.id, new.key.id}
    assert {key.id for key in store.keys("a") if key.is_live(clock.now + 60)} == {new.key.id}
    clock.now += 60
    with pytest.raises(RequestError, match="not live"):
        store.rotate_key(old.key.id, actor="t")


def test_rotation_does_not_lengthen_a_keys_life(store: TenantStore, clock: Clock) -> None:
    store.add("a", actor="t")
    old = store.add_key("a", actor="t", expires=int(clock.now) + 10)
    store.rotate_key(old.key.id, actor="t", grace_seconds=10_000)
    (found,) = [key for key in store.keys("a") if key.id == old.key.id]
    assert found.expires == int(clock.now) + 10


def test_another_tenants_key_is_one_that_is_not_there(store: TenantStore) -> None:
    store.add("a", actor="t")
    store.add("b", actor="t")
    key = store.add_key("a", actor="t").key
    with pytest.raises(RequestError) as caught:
        store.revoke_key(key.id, actor="t", tenant="b")
    assert caught.value.status == 404
    assert store.keys("a")[0].revoked is None


@pytest.mark.parametrize("scopes", [[], ["nope"], ["chat", "Admin"]])
def test_wrong_scopes(sqlite: Database, scopes: list[str]) -> None:
    store = TenantStore(sqlite)
    store.add("a", actor="t")
    with pytest.raises(RequestError, match="scopes"):
        store.add_key("a", actor="t", scopes=scopes)
    with pytest.raises(RequestError, match="expires"):
        store.add_key("a", actor="t", expires=1)


def test_every_act_moves_the_counter_and_is_audited(store: TenantStore, database: Database, clock: Clock) -> None:
    seen = [changes.version(database)]

    def moved() -> bool:
        seen.append(changes.version(database))
        return seen[-1] > seen[-2]

    store.add("a", actor="cli:eve")
    assert moved()
    store.change("a", {"weight": 3}, actor="key:key_1")
    assert moved()
    key = store.add_key("a", actor="t").key
    assert moved()
    new = store.rotate_key(key.id, actor="t")
    assert moved()
    store.revoke_key(new.key.id, actor="t")
    assert moved()
    store.remove("a", actor="t")
    assert moved()
    found = audit.entries(database)
    acts = ["tenant.add", "tenant.set", "key.add", "key.rotate", "key.revoke", "tenant.remove"]
    assert [entry.action for entry in reversed(found)] == acts
    assert found[-1].actor == "cli:eve" and found[-2].detail == "weight=3" and found[-1].at == int(clock.now)
    assert audit.entries(database, "b") == [] and len(audit.entries(database, "a", found[2].id, 2)) == 2


def test_removing_takes_keys_and_leaves_audit(store: TenantStore, database: Database) -> None:
    store.add("a", actor="t")
    store.add_key("a", actor="t")
    store.remove("a", actor="t")
    assert store.all() == [] and store.keys() == []
    assert len(audit.entries(database, "a")) == 3
    assert store.add("a", actor="t").name == "a" and store.keys("a") == []


def test_the_form_of_keys() -> None:
    secret = keys.new_secret("a-b", lambda n: bytes(range(n)))
    assert secret == "sk-a-b-" + bytes(range(32)).hex()
    assert keys.tenant_of(secret) == "a-b"
    for wrong in ("", "sk-", "sk-a", "sk-a-123", "a-b-" + "0" * 64, "sk--" + "0" * 64, "sk-a-" + "0" * 65, "x" * 10**6):
        assert keys.tenant_of(wrong) is None
