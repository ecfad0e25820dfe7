"""What axe finds, and what it cannot: the keyboard, the order of focus, what a screen reader is told."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web import server
from tests.web.conftest import Visit, watched
from tests.web.scripted import ScriptedServer
from tests.web.test_live import figures, lane, node, show
from tests.web.visitor import ask, field, has_ended

AXE = server.WEB / "node_modules" / "axe-core" / "axe.min.js"
CODE = """# Title

Some `code`, a [link](https://elsewhere.example/).

```python
def f(x): # why
    return 'a' + 1
```
"""
NAME_OF_FOCUS = """(() => {
    const focused = document.activeElement;
    return focused.getAttribute("aria-label") ?? (focused.name || focused.innerText.trim());
})()"""


def findings(page: Page) -> list[str]:
    """What axe calls serious or critical, as `rule: element`."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [
        f"{rule['id']}: {part['html'][:200]} {part['any'][0]['message'] if part['any'] else ''}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for part in rule["nodes"]
    ]


@pytest.fixture(params=["light", "dark", "phone"])
def looked_at(request: pytest.FixtureRequest, chrome: Browser, site: str) -> Iterator[tuple[Page, ScriptedServer]]:
    """The page before a scripted server, in both colour schemes and on a phone."""
    touch = request.param == "phone"
    context = chrome.new_context(
        viewport={"width": 390, "height": 844} if touch else {"width": 1280, "height": 800},
        color_scheme="dark" if request.param == "dark" else "light",
        reduced_motion="reduce",
        has_touch=touch,
        is_mobile=touch,
    )
    for visit in watched(context, site):
        page = visit.tab()
        own = ScriptedServer(page)
        page.goto(site)
        expect(page.get_by_test_id("model")).to_have_text("scripted")
        expect(page.get_by_role("radio").first).to_be_visible()
        yield page, own


def test_axe_finds_nothing_serious(looked_at: tuple[Page, ScriptedServer]) -> None:
    page, own = looked_at
    assert findings(page) == []

    turn = ask(page, "Show me")
    own.begin()
    assert findings(page) == []
    by = {"system": 900, "history": 0, "shared": 60}
    own.say("x.cache", prompt_tokens=1000, cached_tokens=960, by=by, est_ttft_saved_ms=310)
    own.say("response.output_text.delta", delta=CODE)
    own.finish()
    has_ended(turn)
    turn.get_by_role("button", name="Answer once more").click()
    expect(page.locator(".turn")).to_have_attribute("data-status", "waiting")
    own.say("response.failed", response={"id": "r", "error": {"code": "engine_error", "message": "gone"}})
    has_ended(page.locator(".turn"), "failed")
    assert findings(page) == []
    page.get_by_role("button", name="Earlier branch").click()
    has_ended(page.locator(".turn"))
    assert findings(page) == []

    page.get_by_role("button", name="Settings of this chat").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert findings(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_test_id("thread").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    assert findings(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Batch")).to_be_visible()
    page.wait_for_timeout(100)
    root = node(1, 0, None, 400, pinned="soft", hits=5, preview="You are the assistant of Alda.")
    show(own, root, *(node(2 + i, 1, f"t{i}", 100, idle=i, preview="How much is a croissant?") for i in range(6)))
    own.say("x.batch", lanes=[lane("a", "t0", "running", 300, 301)])
    figures(own, 90, 10, 12.0)
    expect(page.locator(".node")).to_have_count(7)
    assert findings(page) == []

    page.keyboard.press("3")
    expect(page.get_by_role("heading", name="Side by side")).to_be_visible()
    assert findings(page) == []

    own.cut(4401)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert findings(page) == []
    page.get_by_label("Key", exact=True).fill("sk-x")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_test_id("tenant")).to_be_visible()
    own.cut(4401)
    expect(page.get_by_role("group", name="Problem")).to_contain_text("no longer valid")
    assert findings(page) == []


def test_axe_is_awake(visit: Visit) -> None:
    page = visit.open()
    expect(page.get_by_test_id("model")).to_be_visible()
    page.evaluate("document.querySelector('.hint').style.color = '#ddd'")
    assert any(finding.startswith("color-contrast") for finding in findings(page))


def test_focus_goes_in_reading_order_and_comes_back(visit: Visit) -> None:
    page = visit.open()
    expect(page.get_by_role("radio").first).to_be_visible()
    expect(field(page)).to_be_focused()
    page.get_by_role("link", name="Chat").focus()
    stops = ["Chat"]
    while len(stops) < 40 and not field(page).evaluate("field => field === document.activeElement"):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(NAME_OF_FOCUS))
    expected = ["Chat", "Live", "Side by side", "New conversation", "Import conversations", "Keyboard shortcuts"]
    expected += ["Settings of this chat", "system", "Your message"]
    assert [stop for stop in stops if stop in expected] == expected

    opener = page.get_by_role("button", name="Settings of this chat")
    opener.focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog")
    expect(drawer).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(opener).to_be_focused()


def test_one_live_region_that_speaks_of_states(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    expect(page.locator("[aria-live]")).to_have_count(1)
    page.evaluate(
        """() => {
            window.heard = [];
            const region = document.querySelector('[aria-live]');
            new MutationObserver(() => window.heard.push(region.textContent))
                .observe(region, { childList: true, subtree: true, characterData: true });
        }"""
    )
    turn = ask(page, "Many words")
    own.begin()
    for number in range(50):
        own.say("response.output_text.delta", delta=f"{number} ")
        if number % 10 == 0:
            expect(turn.get_by_test_id("answer")).to_have_text(" ".join(map(str, range(number + 1))))
    own.finish()
    has_ended(turn)
    expect(page.get_by_role("status")).to_have_text("Answer finished.")
    assert list(filter(None, page.evaluate("window.heard"))) == ["Answering.", "Answer finished."]


def test_colours_are_the_visitors_choice_and_kept(visit: Visit) -> None:
    page = visit.tab()
    page.emulate_media(color_scheme="light")
    page.goto(visit.url)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name=re.compile("^Colours"))
    button.click()
    assert page.evaluate(ground) == light
    button.click()
    expect(button).to_have_accessible_name("Colours: dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(page.get_by_test_id("model")).to_be_visible()
    assert page.evaluate(ground) == dark
