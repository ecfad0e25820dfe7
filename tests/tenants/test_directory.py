"""Who is who: only live keys of known tenants open anything, and changes are taken over; on both databases."""

import pytest

from backend.tenants import keys
from backend.tenants.database import Database, open_database
from backend.tenants.directory import Directory
from backend.tenants.errors import DatabaseError
from backend.tenants.identity import LOCAL
from backend.tenants.prompt_store import PromptStore
from backend.tenants.tenant_store import TenantStore
from tests.tenants.conftest import Clock, create_database
from tests.tenants.postgres import Postgres


def test_without_tenants_everybody_is_local(database: Database, clock: Clock) -> None:
    directory = Directory(database, clock)
    assert directory.is_open and directory.authenticate(None) == directory.authenticate("any") == LOCAL
    assert directory.still(LOCAL)


def test_a_server_that_others_reach_is_never_open(database: Database, clock: Clock) -> None:
    """Also when its last tenant is removed while it runs."""
    store = TenantStore(database, clock)
    store.add("a", actor="t")
    secret = store.add_key("a", actor="t").secret
    directory = Directory(database, clock, local=False)
    assert directory.authenticate(secret) is not None
    store.remove("a", actor="t")
    assert directory.refresh()
    assert not directory.is_open
    assert directory.authenticate(None) is directory.authenticate(secret) is None and not directory.still(LOCAL)


def test_keys_open_what_they_are_for(database: Database, clock: Clock) -> None:
    store = TenantStore(database, clock)
    for name in ("a", "a-b"):
        store.add(name, actor="t")
    one = store.add_key("a", actor="t", scopes=["chat"], namespace="n")
    two = store.add_key("a-b", actor="t")
    directory = Directory(database, clock)
    found = directory.authenticate(one.secret)
    assert found is not None
    assert (found.tenant, found.key_id, found.scopes, found.namespace) == ("a", one.key.id, {"chat"}, "n")
    other = directory.authenticate(two.secret)
    assert other is not None and other.tenant == "a-b"
    swapped = "sk-a-" + two.secret.rpartition("-")[2]
    wrong = [None, "", "any", one.secret[:-1], one.secret + "0", one.secret.upper(), swapped, keys.new_secret("a")]
    assert [directory.authenticate(secret) for secret in wrong] == [None] * len(wrong)
    assert not directory.is_open and not directory.still(LOCAL)


def test_revoked_and_expired_keys_open_nothing(database: Database, clock: Clock) -> None:
    store = TenantStore(database, clock)
    store.add("a", actor="t")
    expiring = store.add_key("a", actor="t", expires=int(clock.now) + 10)
    revoked = store.add_key("a", actor="t")
    directory = Directory(database, clock)
    identities = [directory.authenticate(new.secret) for new in (expiring, revoked)]
    assert all(identity is not None and directory.still(identity) for identity in identities)
    store.revoke_key(revoked.key.id, actor="t")
    assert directory.refresh() and not directory.refresh()
    assert directory.authenticate(revoked.secret) is None
    assert [directory.still(identity) for identity in identities if identity] == [True, False]
    clock.now += 10
    assert directory.authenticate(expiring.secret) is None and directory.live_keys() == 0
    assert not any(directory.still(identity) for identity in identities if identity)


def test_prompts_that_a_tenant_sees(database: Database, clock: Clock) -> None:
    tenants, prompts = TenantStore(database, clock), PromptStore(database, clock)
    for name in ("a", "b"):
        tenants.add(name, actor="t")
    prompts.publish("a", "private", "x", actor="t")
    prompts.publish("a", "public", "y", actor="t", public=True)
    prompts.publish("a", "was-public", "z", actor="t", public=True)
    prompts.publish("a", "was-public", "z2", actor="t")
    directory = Directory(database, clock)
    assert {p.id for p in directory.prompts_of("a")} == {"private", "public", "was-public"}
    assert {p.id for p in directory.prompts_of("b")} == {"public"}
    assert {v.text for v in directory.versions_of("b")} == {"y"}
    # what others say in private is not recognized either: that would tell that they say it
    assert [[v.id for v in directory.versions_saying("b", text)] for text in ("x", "y", "z", "z2")] == [
        [],
        ["public"],
        [],
        [],
    ]
    assert [[v.id for v in directory.versions_saying("a", text)] for text in ("x", "z")] == [
        ["private"],
        ["was-public"],
    ]


def test_versions_with_variables_are_found_by_who_may_use_them(database: Database, clock: Clock) -> None:
    tenants, prompts = TenantStore(database, clock), PromptStore(database, clock)
    for name in ("a", "b"):
        tenants.add(name, actor="t")
    prompts.publish("a", "private", "Private {{x}}", actor="t")
    prompts.publish("a", "public", "Was private {{x}}", actor="t")
    prompts.publish("a", "public", "Public {{x}}", actor="t", public=True)
    prompts.publish("a", "plain", "None", actor="t", public=True)
    directory = Directory(database, clock)
    assert {v.text for v in directory.versions_with_variables("b")} == {"Public {{x}}"}
    assert len(directory.versions_with_variables("a")) == 3


def test_a_database_that_is_gone_leaves_what_was_known(postgres_server: Postgres, clock: Clock) -> None:
    create_database(postgres_server, "gone")
    database = open_database(postgres_server.url("gone"))
    store = TenantStore(database, clock)
    store.add("a", actor="t")
    new = store.add_key("a", actor="t")
    directory = Directory(database, clock)
    postgres_server.stop()
    try:
        assert not directory.refresh() and not directory.reachable
        assert directory.authenticate(new.secret) is not None
        with pytest.raises(DatabaseError):
            store.add("b", actor="t")
    finally:
        postgres_server.start()
    store.revoke_key(new.key.id, actor="t")
    assert directory.refresh() and directory.reachable
    assert directory.authenticate(new.secret) is None
    database.close()
