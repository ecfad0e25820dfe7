"""The page before a server that wants keys: signing in, a key that ends, another tenant, and who sees what live.

The server is the real one, with two tenants of its own.
"""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from backend.tenants.database import database_url, open_database
from backend.tenants.identity import SCOPES
from backend.tenants.prompt_store import PromptStore
from backend.tenants.tenant_store import NewKey, TenantStore
from tests.web import server
from tests.web.conftest import Visit
from tests.web.visitor import PATIENCE_MS, ask, field, has_ended, is_connected

PRICES = " ".join(f"Item {number} costs {number + 2} euros." for number in range(40))
SERVE = [sys.executable, "-m", "backend.cli.main", "serve", "--port", "0", "--kv-memory", "64MiB", "--threads", "1"]


class Guarded:
    """A server for the tenants ``alda`` and ``brim``, each with a prompt of its own."""

    def __init__(self, data: Path) -> None:
        self.url = ""
        database = open_database(database_url("", data))
        self.tenants = TenantStore(database, time.time)
        prompts = PromptStore(database, time.time)
        for name in ("alda", "brim"):
            self.tenants.add(name, actor="test")
            prompts.publish(name, "shop", f"You are the assistant of {name}. {PRICES}", actor="test")

    def key(self, tenant: str, *scopes: str) -> NewKey:
        """A new key, once the server knows it: it looks every 0.3 s."""
        chosen = {"scopes": scopes} if scopes else {}
        made = self.tenants.add_key(tenant, actor="test", live_keys=100, **chosen)
        headers = {"Authorization": f"Bearer {made.secret}"}
        while self.url:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{self.url}/v1/models", headers=headers)).close()
                break
            except urllib.error.HTTPError as error:
                assert error.code == 401
                time.sleep(0.05)
        return made


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    server.built_ui()
    data = tmp_path_factory.mktemp("guarded")
    house = Guarded(data)
    house.key("alda")  # so that the server has one when it starts
    process = subprocess.Popen(
        [*SERVE, "--data-dir", str(data)], cwd=server.REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if ready := re.search(r"ready on (http://\S+)", line):
            house.url = ready[1]
            break
    else:
        pytest.fail("banyan serve ended")
    yield house
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture
def opened(chrome: Browser, guarded: Guarded) -> Iterator[Callable[[], Page]]:
    """Opens pages of one browser that is new. Afterwards: nothing but refusals in its console, no key where it does
    not belong, no request elsewhere."""
    visit = Visit(chrome.new_context(viewport={"width": 1280, "height": 800}), guarded.url)
    pages: list[Page] = []

    def page() -> Page:
        pages.append(visit.open())
        return pages[-1]

    yield page
    kept = [one.evaluate("JSON.stringify(localStorage)") for one in pages]
    visit.context.close()
    assert visit.strangers() == []
    assert not [text for text in [*visit.requests, *kept] if "sk-" in text]
    refusals = re.compile(r"status of 40[13]|WebSocket connection to .* failed")
    assert not [complaint for complaint in visit.complaints if not refusals.search(complaint)]


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()


def is_signed_in(page: Page, tenant: str) -> None:
    expect(page.get_by_test_id("tenant")).to_have_text(tenant, timeout=PATIENCE_MS)
    is_connected(page)


def problem(page: Page) -> str:
    said = page.get_by_role("group", name="Problem").first
    expect(said).to_be_visible()
    return said.inner_text()


def test_wrong_key_right_key_revoked_key(guarded: Guarded, opened: Callable[[], Page]) -> None:
    page = opened()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_role("group", name="Problem")).to_have_count(0)
    expect(page.get_by_test_id("link")).to_have_text("Signed out")
    sign_in(page, "sk-alda-wrong")
    expect(page.get_by_role("group", name="Problem")).to_contain_text("The server does not know this key")
    assert "copied whole" in problem(page)
    first = guarded.key("alda")
    sign_in(page, first.secret)
    is_signed_in(page, "alda")
    has_ended(ask(page, "How much is item 7?"))
    guarded.tenants.revoke_key(first.key.id, actor="test")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert "no longer valid" in problem(page) and "revoked or has expired" in problem(page)
    assert "your conversations are still here" in problem(page)
    sign_in(page, guarded.key("alda").secret)
    is_signed_in(page, "alda")
    expect(page.locator(".turn")).to_have_count(1)
    has_ended(ask(page, "And item 8?"))
    page.reload()  # the key is this tab's until it is closed
    is_signed_in(page, "alda")
    has_ended(ask(page, "And item 9?"))


def test_a_key_that_may_not_chat_is_told_what_is_missing(guarded: Guarded, opened: Callable[[], Page]) -> None:
    page = opened()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    sign_in(page, guarded.key("alda", "models").secret)
    expect(page.get_by_role("group", name="Problem")).to_contain_text("This key may not chat")
    assert "scope “chat”" in problem(page)
    expect(page.get_by_role("status")).to_have_text("This key may not chat")
    sign_in(page, guarded.key("alda").secret)
    is_signed_in(page, "alda")


def test_another_tenant_in_the_same_tab(guarded: Guarded, opened: Callable[[], Page]) -> None:
    page = opened()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    sign_in(page, guarded.key("alda").secret)
    is_signed_in(page, "alda")
    has_ended(ask(page, "How much is item 7?"))
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_test_id("tenant")).to_have_count(0)
    sign_in(page, guarded.key("brim").secret)
    is_signed_in(page, "brim")
    page.get_by_role("button", name="New conversation").click()
    page.get_by_text("Read the system prompt").click()
    expect(page.locator(".prompt-body")).to_contain_text("the assistant of brim")
    has_ended(ask(page, "How much is item 7?"))


def test_live_shows_the_own_tenant_and_everything_to_an_operator(guarded: Guarded, opened: Callable[[], Page]) -> None:
    for tenant in ("alda", "brim"):
        page = opened()
        sign_in(page, guarded.key(tenant).secret)
        is_signed_in(page, tenant)
        has_ended(ask(page, "How much is item 11?"))
        page.get_by_role("link", name="Live").click()
        legend = page.locator(".tree-legend")
        expect(legend).to_contain_text(tenant, timeout=PATIENCE_MS)
        expect(legend).not_to_contain_text("brim" if tenant == "alda" else "alda")
    page = opened()
    sign_in(page, guarded.key("alda", *SCOPES).secret)
    is_signed_in(page, "alda")
    page.get_by_role("link", name="Live").click()
    for tenant in ("alda", "brim"):
        expect(page.locator(".tree-legend")).to_contain_text(tenant, timeout=PATIENCE_MS)


def test_side_by_side_with_two_keys(guarded: Guarded, opened: Callable[[], Page]) -> None:
    page = opened()
    sign_in(page, guarded.key("alda").secret)
    is_signed_in(page, "alda")
    page.get_by_role("link", name="Side by side").click()
    right = page.get_by_role("region", name="Right", exact=True)
    right.get_by_role("button", name="As another tenant").click()
    right.get_by_label("Key, Right").fill(guarded.key("brim").secret)
    right.get_by_role("button", name="Use").click()
    expect(right.get_by_role("combobox")).to_be_visible()
    field(page).fill("How much is item 5?")
    field(page).press("Enter")
    for name in ("Left", "Right"):
        here = page.get_by_role("region", name=name, exact=True)
        expect(here).to_have_attribute("data-status", "done", timeout=PATIENCE_MS)
        computed = int((here.locator(".computed-count b").text_content() or "").replace(",", ""))
        assert 0 < computed < 200  # published prompts were computed before
    expect(right).to_contain_text("Tenant brim")
    assert json.loads(page.evaluate("JSON.stringify(sessionStorage)"))  # where keys are, for this tab
