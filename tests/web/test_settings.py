"""The drawer of a conversation: sampling, the system prompt and its versions."""

import json
import re

from playwright.sync_api import Page, Route, expect

from tests.web.conftest import Visit
from tests.web.scripted import ScriptedServer
from tests.web.visitor import Wire, ask, has_ended


def test_sampling_goes_out_and_what_is_wrong_does_not(visit: Visit) -> None:
    page = visit.tab()
    wire = Wire(page)
    page.goto(visit.url)
    page.get_by_role("button", name="Settings of this chat").click()
    drawer = page.get_by_role("dialog", name="Settings of this chat")
    drawer.get_by_role("textbox", name="Temperature").fill("0,5")
    drawer.get_by_role("textbox", name="Seed").fill("7")
    drawer.get_by_role("textbox", name="Longest answer").fill("5")
    drawer.get_by_role("textbox", name="Stop strings").fill("END\n\\n\\n")
    top_p = drawer.get_by_role("textbox", name="Top p")
    top_p.fill("7")
    expect(top_p).to_have_attribute("aria-invalid", "true")
    expect(drawer.get_by_text("Top p lies between above 0 and 1.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(page.locator(".badge")).to_have_text("4")

    turn = ask(page, "Briefly")
    has_ended(turn, "cut")
    expect(turn.get_by_text("Ended at the length limit.")).to_be_visible()
    request = wire.requests()[0]
    asked = {name: request.get(name) for name in ("temperature", "seed", "max_output_tokens", "stop", "top_p")}
    assert asked == {"temperature": 0.5, "seed": 7, "max_output_tokens": 5, "stop": ["END", "\n\n"], "top_p": None}

    page.get_by_role("button", name="Settings of this chat").click()
    # What the server took by itself has been learned from its answer.
    placeholder = drawer.get_by_role("textbox", name="Top p").get_attribute("placeholder")
    assert placeholder is not None and re.fullmatch(r"[\d.]+ \(the server.s\)", placeholder)
    drawer.get_by_role("button", name="All as the server has it").click()
    expect(drawer.get_by_role("textbox", name="Temperature")).to_have_value("")
    drawer.get_by_role("button", name="Close").click()
    expect(page.locator(".badge")).to_have_count(0)


def test_versions_of_a_prompt(visit: Visit) -> None:
    page = visit.tab()
    own = ScriptedServer(page)
    prompt = {"id": "alda", "name": "Alda", "description": "A bakery", "text": "Newest.", "questions": []}
    answers = {
        "/v1/prompts": {"data": [prompt]},
        "/v1/prompts/alda/versions": {"data": [{"version": 1}, {"version": 2}]},
        "/v1/prompts/alda/versions/1": {"version": 1, "text": "Oldest."},
    }

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(visit.url)
        route.fulfill(content_type="application/json", body=json.dumps(answers[path]))

    page.route("**/v1/prompts**", answer)
    page.route("**/v1/prompts/**", answer)
    page.goto(visit.url)
    page.get_by_text("Read the system prompt").click()
    body = page.locator(".prompt-body")
    expect(body).to_have_text("Newest.")
    page.get_by_role("button", name="Latest version: choose another").click()
    version = page.get_by_role("combobox", name="Version")
    version.select_option("1")
    expect(body).to_have_text("Oldest.")
    turn = ask(page, "Hi")
    own.answer("Hello")
    has_ended(turn)
    assert own.last()["prompt"] == {"id": "alda", "version": "1"}
    expect(page.get_by_text("System prompt: Alda (version 1)")).to_be_visible()


def test_the_prompt_is_fixed_by_the_first_question(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    page.get_by_role("button", name="Settings of this chat").click()
    drawer = page.get_by_role("dialog", name="Settings of this chat")
    drawer.get_by_role("combobox", name="System prompt").select_option(label="Your own text")
    drawer.get_by_role("textbox", name="System prompt: your own text").fill("You are a lighthouse.")
    page.keyboard.press("Escape")
    turn = ask(page, "Who are you?")
    own.answer("A light.")
    has_ended(turn)
    assert own.last()["instructions"] == "You are a lighthouse."
    page.get_by_role("button", name="Settings of this chat").click()
    expect(drawer.get_by_role("combobox")).to_have_count(0)
    expect(drawer.locator(".prompt-body")).to_have_text("You are a lighthouse.")
