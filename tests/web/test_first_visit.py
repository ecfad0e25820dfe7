"""The way of a first visit, in a real browser against the real protocol."""

import re

from playwright.sync_api import expect

from tests.web.conftest import Visit
from tests.web.visitor import Wire, ask, bar_in_words, field, figures, has_ended, is_connected, is_streaming

LONG = "Please tell me everything, the long way."


def test_page_and_its_policy(visit: Visit) -> None:
    page = visit.tab()
    response = page.goto(visit.url)
    assert response is not None
    assert "default-src 'self'" in response.headers["content-security-policy"]
    expect(page.get_by_test_id("model")).to_have_text(re.compile(r"\S"))
    is_connected(page)
    expect(page).to_have_title("Banyan")


def test_prompt_suggestion_and_figures(visit: Visit) -> None:
    page = visit.tab()
    wire = Wire(page)
    page.goto(visit.url)
    page.get_by_role("radio").nth(-2).check()
    page.get_by_text("Read the system prompt").click()
    expect(page.locator(".prompt-body")).to_have_text(re.compile(r"\S"))
    suggestion = page.get_by_role("region", name="Suggestions").get_by_role("button").first
    question = suggestion.inner_text()
    suggestion.click()

    turn = page.locator(".turn")
    expect(turn.locator(".question")).to_have_text(question)
    has_ended(turn)
    expect(turn.get_by_test_id("answer")).to_have_text(re.compile(r"\S"))
    shown = figures(turn)
    assert {"First token", "In", "Out", "From cache"} <= shown.keys()
    cached, prompt = bar_in_words(turn)
    assert 0 <= cached <= prompt and int(shown["In"].replace(",", "")) == prompt
    request = wire.requests()[0]
    assert request["prompt"]["id"] and request["input"][0]["content"] == question
    expect(page.get_by_role("status")).to_have_text(re.compile(r"Answer finished, [\d,]+ tokens?\."))


def test_next_turn_is_chained_and_comes_from_the_cache(visit: Visit) -> None:
    page = visit.tab()
    wire = Wire(page)
    page.goto(visit.url)
    has_ended(ask(page, "What do you sell?"))
    second = ask(page, "And what does it cost?")
    has_ended(second)
    cached, prompt = bar_in_words(second)
    assert 0 < cached < prompt
    request = wire.requests()[1]
    assert request["previous_response_id"]
    assert [item["content"] for item in request["input"]] == ["And what does it cost?"]


def test_stop_by_button_and_by_key(visit: Visit) -> None:
    page = visit.open()
    first = ask(page, LONG)
    is_streaming(first)
    page.get_by_role("button", name="Stop").click()
    has_ended(first, "stopped")
    expect(page.get_by_role("status")).to_have_text("Answer stopped.")
    kept = first.get_by_test_id("answer").inner_text()
    assert kept

    second = ask(page, LONG)
    is_streaming(second)
    page.keyboard.press("Escape")
    has_ended(second, "stopped")
    assert first.get_by_test_id("answer").inner_text() == kept
    has_ended(ask(page, "Thank you."))


def test_conversations(visit: Visit) -> None:
    page = visit.open()
    has_ended(ask(page, "First question"))
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    field(page).fill("A draft")
    page.get_by_role("button", name="First question", exact=False).first.click()
    expect(field(page)).to_have_value("")
    page.get_by_role("button", name="New conversation").click()
    expect(field(page)).to_have_value("A draft")
    has_ended(ask(page, "Second question"))

    entries = page.locator(".conversations .entry")
    expect(entries.locator(".entry-title")).to_have_text(["Second question", "First question"])
    page.get_by_role("button", name="More: First question").click()
    delete = page.locator(".conversations").get_by_role("button", name="Delete", exact=True)
    delete.click()
    page.get_by_role("button", name="Keep").click()
    expect(entries).to_have_count(2)
    page.get_by_role("button", name="More: First question").click()
    delete.click()
    delete.click()
    expect(entries.locator(".entry-title")).to_have_text(["Second question"])


def test_own_system_prompt(visit: Visit) -> None:
    page = visit.tab()
    wire = Wire(page)
    page.goto(visit.url)
    page.get_by_role("radio", name="Your own").check()
    page.get_by_role("textbox", name="System prompt").fill("You answer for a lighthouse.")
    has_ended(ask(page, "How tall is it?"))
    assert wire.requests()[0]["instructions"] == "You answer for a lighthouse."
    assert "prompt" not in wire.requests()[0]
    page.get_by_text("System prompt: your own").click()
    expect(page.locator(".prompt-body")).to_have_text("You answer for a lighthouse.")


def test_error_names_the_next_step_and_the_page_goes_on(visit: Visit) -> None:
    page = visit.open()
    turn = ask(page, "word " * 60_000)
    has_ended(turn, "failed")
    expect(turn.get_by_role("group", name="Problem")).to_contain_text("longer than the model can read")
    expect(turn.get_by_role("group", name="Problem")).to_contain_text("Start a new conversation")
    has_ended(ask(page, "A short one"))


def test_reload_keeps_conversations(visit: Visit) -> None:
    page = visit.tab()
    wire = Wire(page)
    page.goto(visit.url)
    has_ended(ask(page, "Remember me"))
    answer = page.get_by_test_id("answer").inner_html()
    page.reload()
    expect(page.locator(".question")).to_have_text(["Remember me"])
    assert page.get_by_test_id("answer").inner_html() == answer
    has_ended(ask(page, "Go on"))
    request = wire.requests()[-1]
    assert "previous_response_id" not in request
    assert [item["role"] for item in request["input"]] == ["user", "assistant", "user"]

    other = visit.open()
    expect(other.locator(".turn")).to_have_count(0)
    expect(other.locator(".entry-title")).to_have_text(["Remember me"])


def test_keys_and_drafts(visit: Visit) -> None:
    page = visit.open()
    expect(field(page)).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(field(page)).to_have_value("one\ntwo")
    page.reload()
    expect(field(page)).to_have_value("one\ntwo")
    page.keyboard.press("Enter")
    expect(page.locator(".question")).to_have_text("one\ntwo", use_inner_text=True)
    has_ended(page.locator(".turn"))


def test_phone(phone: Visit) -> None:
    page = phone.open()
    sidebar = page.get_by_role("complementary", name="Conversations")
    expect(sidebar).to_be_hidden()
    page.get_by_role("region", name="Suggestions").get_by_role("button").first.tap()
    has_ended(page.locator(".turn"))
    page.get_by_role("button", name="Conversations").tap()
    expect(sidebar).to_be_visible()
    page.keyboard.press("Escape")
    expect(sidebar).to_be_hidden()
    page.get_by_role("button", name="Conversations").tap()
    page.get_by_role("button", name="New conversation").tap()
    expect(sidebar).to_be_hidden()
    expect(page.locator(".turn")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
