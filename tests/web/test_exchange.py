"""Conversations are renamed, searched, written to files and read from them."""

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.web.scripted import ScriptedServer
from tests.web.visitor import ask, has_ended


def conversation(page: Page, own: ScriptedServer, question: str, answer: str) -> None:
    """A finished conversation of one turn."""
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    turn = ask(page, question)
    own.answer(answer)
    has_ended(turn)


def test_rename_and_search(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    conversation(page, own, "How much is a croissant?", "Three euros.")
    conversation(page, own, "Opening hours", "From seven.")
    titles = page.locator(".conversations .entry-title")
    expect(titles).to_have_text(["Opening hours", "How much is a croissant?"])

    page.get_by_role("button", name="More: Opening hours").click()
    page.get_by_role("button", name="Rename").click()
    name = page.get_by_role("textbox", name="Name of the conversation")
    expect(name).to_be_focused()
    name.fill("The clock")
    name.press("Enter")
    expect(titles).to_have_text(["The clock", "How much is a croissant?"])

    page.keyboard.press("Control+k")
    search = page.get_by_role("searchbox", name="Search conversations")
    expect(search).to_be_focused()
    search.fill("EUROS")
    expect(titles).to_have_text(["How much is a croissant?"])
    search.fill("marzipan")
    expect(page.get_by_text("No conversation holds these words.")).to_be_visible()
    search.press("Escape")
    expect(titles).to_have_count(2)
    page.reload()
    expect(titles).to_have_text(["The clock", "How much is a croissant?"])


def test_json_there_and_back(scripted: tuple[Page, ScriptedServer], tmp_path: Path) -> None:
    page, own = scripted
    conversation(page, own, "One", "**first**")
    page.locator(".turn").get_by_role("button", name="Answer once more").click()
    expect(page.locator(".turn")).to_have_attribute("data-status", "waiting")
    own.answer("second")
    has_ended(page.locator(".turn"))
    with page.expect_download() as saving:
        page.get_by_role("button", name="Export all conversations").click()
    file = tmp_path / saving.value.suggested_filename
    saving.value.save_as(file)
    assert file.name == "one.json"
    assert [turn["answer"] for turn in json.loads(file.read_text())["conversations"][0]["turns"]] == [
        "**first**",
        "second",
    ]

    page.evaluate("localStorage.clear()")
    page.get_by_role("button", name="More: One").click()
    delete = page.locator(".conversations").get_by_role("button", name="Delete", exact=True)
    delete.click()
    delete.click()
    expect(page.locator(".conversations")).to_have_count(0)
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Import conversations").click()
    choosing.value.set_files(file)
    expect(page.get_by_test_id("answer")).to_have_text("second")
    page.get_by_role("button", name="Earlier branch").click()
    expect(page.get_by_test_id("answer").locator("strong")).to_have_text("first")


def test_markdown_there_and_back(scripted: tuple[Page, ScriptedServer], tmp_path: Path) -> None:
    page, own = scripted
    page.get_by_role("radio", name="Your own").check()
    page.get_by_role("textbox", name="System prompt").fill("Be brief.")
    turn = ask(page, "One\n## Answer\ntwo")
    own.answer("## Question\n\nof **taste**")
    has_ended(turn)
    page.get_by_role("button", name="More: One").click()
    with page.expect_download() as saving:
        page.get_by_role("button", name="Export as .md").click()
    file = tmp_path / saving.value.suggested_filename
    saving.value.save_as(file)
    assert "## System prompt\n\nBe brief.\n" in file.read_text()

    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Import conversations").click()
    choosing.value.set_files(file)
    expect(page.locator(".conversations .entry")).to_have_count(2)
    expect(page.locator(".question")).to_have_text("One\n## Answer\ntwo", use_inner_text=True)
    expect(page.get_by_test_id("answer").locator("h2")).to_have_text("Question")
    page.get_by_text("System prompt: your own").click()
    expect(page.locator(".prompt-body")).to_have_text("Be brief.")


def test_a_file_without_conversations_is_refused_in_words(
    scripted: tuple[Page, ScriptedServer], tmp_path: Path
) -> None:
    page, _ = scripted
    file = tmp_path / "notes.md"
    file.write_text("# Shopping\n\n- flour\n")
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Import conversations").click()
    choosing.value.set_files(file)
    expect(page.get_by_role("group", name="Problem")).to_contain_text("holds no conversation")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("group", name="Problem")).to_have_count(0)
