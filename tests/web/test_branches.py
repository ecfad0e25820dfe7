"""Asking again, editing, continuing, deleting: the tree of turns as the visitor moves in it."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.web.conftest import Visit
from tests.web.scripted import ScriptedServer
from tests.web.visitor import ask, has_ended, is_streaming

LONG = "Please tell me everything, the long way."


def questions(page: Page) -> Locator:
    """The questions of the branch that is shown."""
    return page.locator(".question")


def test_regenerate_edit_and_the_arrows(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    ask(page, "One")
    own.answer("first")
    turn = ask(page, "Two")
    own.answer("second")
    has_ended(turn)

    turn.get_by_role("button", name="Answer once more").click()
    expect(page.locator(".turn")).to_have_count(2)
    turn = page.locator(".turn").last
    expect(turn).to_have_attribute("data-status", "waiting")
    own.answer("second again")
    has_ended(turn)
    assert own.last()["previous_response_id"] == "resp_1"
    expect(turn.locator(".branch-place")).to_have_text("Branch 2/2")

    turn.get_by_role("button", name="Earlier branch").click()
    expect(page.get_by_test_id("answer").last).to_have_text("second")
    expect(page.get_by_role("button", name="Earlier branch")).to_be_disabled()
    page.get_by_role("button", name="Later branch").click()
    expect(page.get_by_test_id("answer").last).to_have_text("second again")

    first = page.locator(".turn").first
    first.hover()
    first.get_by_role("button", name="Edit the question").click()
    editor = page.get_by_role("textbox", name="Edit the question")
    expect(editor).to_be_focused()
    editor.fill("Uno")
    editor.press("Enter")
    expect(questions(page)).to_have_text(["Uno"])
    own.answer("primo")
    has_ended(page.locator(".turn"))
    page.get_by_role("button", name="Earlier branch").click()
    expect(questions(page)).to_have_text(["One", "Two"])

    page.reload()
    expect(questions(page)).to_have_text(["One", "Two"])
    page.get_by_role("button", name="Later branch").first.click()
    expect(questions(page)).to_have_text(["Uno"])


def test_editing_can_be_given_up(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "One")
    own.answer("first")
    has_ended(turn)
    turn.hover()
    turn.get_by_role("button", name="Edit the question").click()
    page.get_by_role("textbox", name="Edit the question").press("Escape")
    expect(questions(page)).to_have_text(["One"])
    assert len(own.requests) == 1


def test_continue_what_was_stopped(visit: Visit) -> None:
    page = visit.open()
    turn = ask(page, LONG)
    is_streaming(turn)
    page.keyboard.press("Escape")
    has_ended(turn, "stopped")
    turn.get_by_role("button", name="Continue the answer").click()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".continued")).to_have_text("Continued")
    has_ended(page.locator(".turn").last)


def test_delete_a_turn(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    for question in ("One", "Two", "Three"):
        turn = ask(page, question)
        own.answer(question)
        has_ended(turn)
    second = page.locator(".turn").nth(1)
    second.get_by_role("button", name="Delete the turn").click()
    expect(second.get_by_role("group", name="Delete")).to_contain_text("all that follows it")
    second.get_by_role("button", name="Keep").click()
    expect(questions(page)).to_have_count(3)
    second.get_by_role("button", name="Delete the turn").click()
    second.get_by_role("button", name="Delete", exact=True).click()
    expect(questions(page)).to_have_text(["One"])
    turn = ask(page, "Four")
    own.answer("4")
    has_ended(turn)
    assert own.last()["previous_response_id"] == "resp_1"


def test_keys_in_a_conversation(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    ask(page, "One")
    own.answer("first")
    has_ended(page.locator(".turn"))
    page.get_by_test_id("thread").focus()
    page.keyboard.press("r")
    expect(page.locator(".turn")).to_have_attribute("data-status", "waiting")
    own.answer("again")
    has_ended(page.locator(".turn"))
    page.keyboard.press("[")
    expect(page.get_by_test_id("answer")).to_have_text("first")
    page.keyboard.press("]")
    expect(page.get_by_test_id("answer")).to_have_text("again")
    page.keyboard.press("/")
    expect(page.get_by_role("textbox", name="Your message")).to_be_focused()
    page.keyboard.type("r?")
    expect(page.get_by_role("textbox", name="Your message")).to_have_value("r?")
    expect(page).to_have_url(re.compile(r"/(#/)?$"))
