"""The registry of prompts: versions never change, the latest pointer does; on both databases."""

import pytest

from backend.errors import RequestError
from backend.tenants import audit
from backend.tenants.database import Database
from backend.tenants.prompt_store import PromptStore, Question
from backend.tenants.tenant_store import TenantStore


@pytest.fixture
def store(database: Database) -> PromptStore:
    for name in ("a", "b"):
        TenantStore(database).add(name, actor="t")
    return PromptStore(database)


def test_versions_rollback_and_diff(store: PromptStore) -> None:
    one = store.publish("a", "p", "Line one.\nLine two.", actor="t", name="Shop", questions=(Question("q", "a"),))
    two = store.publish("a", "p", "Line one.\nLine 2 🙂.", actor="t", public=True, locked=True, pin="hard")
    assert (one.version, two.version) == (1, 2)
    assert store.versions("a", "p") == [one, two] and store.get("a", "p") == two and store.get("a", "p", 1) == one
    (prompt,) = store.prompts("a")
    assert (prompt.latest, prompt.name, prompt.questions) == (2, "Shop", (Question("q", "a"),))
    assert store.diff("a", "p", 1, 2).splitlines()[-2:] == ["-Line two.", "+Line 2 🙂."]
    assert store.rollback("a", "p", 1, actor="t") == one and store.get("a", "p") == one
    three = store.publish("a", "p", "Line three.", actor="t")
    assert three.version == 3 and store.versions("a", "p")[:2] == [one, two]


def test_tenants_do_not_see_each_others(store: PromptStore) -> None:
    store.publish("a", "p", "mine", actor="t")
    assert store.prompts("b") == []
    acts = [
        lambda: store.get("b", "p"),
        lambda: store.get("b", "p\0"),
        lambda: store.get("b\0", "p"),
        lambda: store.versions("b", "p"),
        lambda: store.rollback("b", "p", 1, actor="t"),
        lambda: store.remove("b", "p", actor="t"),
        lambda: store.diff("b", "p", 1, 1),
    ]
    for act in acts:
        with pytest.raises(RequestError) as caught:
            act()
        assert caught.value.status == 404
    assert store.publish("b", "p", "theirs", actor="t").version == 1 and store.get("a", "p").text == "mine"


def test_audit_has_no_text(store: PromptStore, database: Database) -> None:
    store.publish("a", "p", "a secret recipe", actor="t", description="secret words")
    store.rollback("a", "p", 1, actor="t")
    store.remove("a", "p", actor="t")
    acts = [entry for entry in audit.entries(database, "a") if entry.action.startswith("prompt.")]
    assert [entry.action for entry in acts] == ["prompt.remove", "prompt.rollback", "prompt.publish"]
    assert {entry.target for entry in acts} == {"p@1"} and "secret" not in repr(acts)
    assert store.prompts("a") == []


@pytest.mark.parametrize(
    ("prompt_id", "text", "param"),
    [
        ("", "x", "id"),
        ("a/b", "x", "id"),
        ("a" * 65, "x", "id"),
        ("p", "", "text"),
        ("p", " \n", "text"),
        ("p", "a\0b", "text"),
        ("p", "\ud800", "text"),
        ("p", "x" * 400_001, "text"),
    ],
)
def test_wrong_prompts(sqlite: Database, prompt_id: str, text: str, param: str) -> None:
    TenantStore(sqlite).add("a", actor="t")
    with pytest.raises(RequestError) as caught:
        PromptStore(sqlite).publish("a", prompt_id, text, actor="t")
    assert caught.value.param == param and PromptStore(sqlite).prompts("a") == []


def test_only_existing_tenants_and_versions(store: PromptStore) -> None:
    with pytest.raises(RequestError):
        store.publish("c", "p", "x", actor="t")
    store.publish("local", "p", "x", actor="t")  # of the server without tenants
    store.publish("a", "p", "x", actor="t")
    for version in (0, -1, 2, 2**63, 10**30):
        with pytest.raises(RequestError):
            store.get("a", "p", version)
        with pytest.raises(RequestError):
            store.rollback("a", "p", version, actor="t")
