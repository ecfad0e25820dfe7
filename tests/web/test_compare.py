"""The same question on two sides: two system prompts, and two tenants with keys of their own."""

import json
import re

from playwright.sync_api import Locator, Page, Route, expect

from tests.web.conftest import Visit
from tests.web.scripted import ScriptedServer
from tests.web.visitor import field

KEY = "sk-brim-0123"


def side(page: Page, name: str) -> Locator:
    """One of the two."""
    return page.get_by_role("region", name=name, exact=True)


def test_two_prompts(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("link", name="Side by side").click()
    choices = page.get_by_role("combobox", name=re.compile("^System prompt"))
    expect(choices).to_have_count(2)
    assert choices.nth(0).input_value() != choices.nth(1).input_value()
    field(page).fill("What do you sell?")
    field(page).press("Enter")
    for name in ("Left", "Right"):
        here = side(page, name)
        expect(here).to_have_attribute("data-status", "done", timeout=20_000)
        expect(here.get_by_test_id("answer")).to_have_text(re.compile(r"\S"))
        label = here.get_by_role("img").get_attribute("aria-label") or ""
        cached, prompt = (int(number.replace(",", "")) for number in re.findall(r"[\d,]+", label)[:2])
        shown = int((here.locator(".computed-count b").text_content() or "").replace(",", ""))
        assert shown == prompt - cached
        squares = here.locator(".squares i").count()
        assert 1 <= squares <= 170
    expect(page.get_by_role("status")).to_have_text("Both answers finished.")
    assert visit.context.storage_state()["origins"] == [] or "What do you sell" not in json.dumps(
        visit.context.storage_state()
    )


def test_stop_both(visit: Visit) -> None:
    page = visit.tab()
    page.goto(visit.url + "/#/compare")
    field(page).fill("Please tell me everything, the long way.")
    field(page).press("Enter")
    for name in ("Left", "Right"):
        expect(side(page, name).get_by_test_id("answer")).to_have_text(re.compile(r"\S"), timeout=20_000)
    page.keyboard.press("Escape")
    for name in ("Left", "Right"):
        expect(side(page, name)).to_have_attribute("data-status", "stopped")


def test_another_tenant_is_shown_by_ticket_and_never_in_an_address(visit: Visit) -> None:
    page = visit.tab()
    own = ScriptedServer(page)
    keys: list[str | None] = []

    def prompts(route: Route) -> None:
        keys.append(route.request.headers.get("authorization"))
        name = "Brim" if keys[-1] else "Alda"
        body = {"data": [{"id": name.lower(), "name": name, "text": "x"}]}
        route.fulfill(content_type="application/json", body=json.dumps(body))

    def ticket(route: Route) -> None:
        keys.append(route.request.headers.get("authorization"))
        route.fulfill(status=201, content_type="application/json", body=json.dumps({"ticket": "t1", "expires_in": 30}))

    page.route("**/v1/prompts", prompts)
    page.route("**/v1/tickets", ticket)
    page.goto(visit.url + "/#/compare")
    expect(page.get_by_test_id("model")).to_have_text("scripted")
    right = side(page, "Right")
    right.get_by_role("button", name="As another tenant").click()
    right.get_by_label("Key, Right").fill(KEY)
    right.get_by_role("button", name="Use").click()
    expect(right.get_by_role("combobox")).to_have_value("brim")
    offered = page.evaluate(
        """() => {
            window.offered = [];
            const Native = window.WebSocket;
            window.WebSocket = class extends Native {
                constructor(url, protocols) { window.offered.push(protocols); super(url, protocols); }
            };
        }"""
    )
    assert offered is None
    field(page).fill("Hi")
    field(page).press("Enter")
    page.wait_for_function("window.offered.length === 2")
    assert sorted(map(sorted, page.evaluate("window.offered"))) == [["banyan.v1"], ["banyan.v1", "ticket.t1"]]
    assert keys == [None, f"Bearer {KEY}", f"Bearer {KEY}"]
    assert own.sockets >= 1
    assert not [url for url in visit.requests if KEY in url]
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")


def test_a_key_that_is_refused_is_said_beside_the_field(visit: Visit) -> None:
    page = visit.tab()
    ScriptedServer(page)
    page.route(
        "**/v1/prompts",
        lambda route: (
            route.fulfill(status=401, content_type="application/json", body="{}")
            if "authorization" in route.request.headers
            else route.fallback()
        ),
    )
    page.goto(visit.url + "/#/compare")
    left = side(page, "Left")
    left.get_by_role("button", name="As another tenant").click()
    left.get_by_label("Key, Left").fill("sk-wrong")
    left.get_by_role("button", name="Use").click()
    expect(left.get_by_text("The server does not know this key.")).to_be_visible()
    # The browser itself reports the refusal.
    visit.complaints.clear()


def test_signing_in(visit: Visit) -> None:
    page = visit.tab()
    own = ScriptedServer(page)

    def guarded(route: Route) -> None:
        if route.request.headers.get("authorization") != f"Bearer {KEY}":
            route.fulfill(status=401, content_type="application/json", body="{}")
        elif route.request.url.endswith("/tickets"):
            route.fulfill(status=201, content_type="application/json", body=json.dumps({"ticket": "t1"}))
        else:
            route.fulfill(content_type="application/json", body=json.dumps({"data": [{"id": "brim", "name": "Brim"}]}))

    for path in ("models", "prompts", "tickets"):
        page.route(f"**/v1/{path}", guarded)
    page.goto(visit.url)
    key = page.get_by_label("Key", exact=True)
    # The scripted socket lets everybody in: what is checked here is the page's side of HTTP.
    own.cut(4401)
    expect(key).to_be_visible()
    key.fill("sk-wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("group", name="Problem").first).to_contain_text("does not know this key")
    page.get_by_label("Key", exact=True).fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("radio", name="Brim")).to_be_visible()
    page.reload()
    expect(page.get_by_role("radio", name="Brim")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_timeout(300)
    own.cut(4401)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert not [url for url in visit.requests if "sk-" in url]
    visit.complaints.clear()
