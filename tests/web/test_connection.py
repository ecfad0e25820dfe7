"""What the visitor sees when connections break, the server goes away and comes back, and a second tab is open."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from backend.server.events import CLIENT_EVENTS
from tests.web import server
from tests.web.conftest import Visit
from tests.web.scripted import Cable, ScriptedServer
from tests.web.visitor import Wire, ask, field, has_ended, is_connected, is_streaming

LONG = "Please tell me everything, the long way."
A_WHILE = "Please talk for a while."


def test_server_restarted_in_the_middle_of_an_answer(chrome: Browser) -> None:
    server.built_ui()
    port = server.free_port()
    page = chrome.new_page()
    try:
        with server.running_server(port) as url:
            page.goto(url)
            turn = ask(page, LONG)
            is_streaming(turn)
        expect(turn).to_have_attribute("data-status", "lost")
        kept = turn.get_by_test_id("answer").inner_text()
        with server.running_server(port):
            # The new server has never heard of this answer: its text stays, and asking again is one click away.
            has_ended(turn, "failed")
            assert turn.get_by_test_id("answer").inner_text() == kept
            expect(turn.get_by_role("group", name="Problem")).to_contain_text("The rest of this answer is lost")
            turn.get_by_role("button", name="Try again").click()
            is_streaming(page.locator(".turn"))
    finally:
        page.close()


def half_an_answer(page: Page, own: ScriptedServer) -> None:
    """A question, and an answer of which the first words have come."""
    turn = ask(page, "Hi")
    own.say("response.created", sequence_number=0, response={"id": "resp_1"})
    own.say("response.output_text.delta", sequence_number=4, delta="One ")
    expect(turn.get_by_test_id("answer")).to_have_text("One")


def test_an_answer_goes_on_where_the_connection_broke(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    half_an_answer(page, own)
    turn = page.locator(".turn")
    own.cut()
    expect(turn).to_have_attribute("data-status", "lost")
    expect(turn.locator(".waiting")).to_contain_text("goes on where it broke off")
    expect(turn).to_have_attribute("data-status", "streaming")
    assert own.sockets == 2
    resume = own.last("x.resume")
    assert (resume["response_id"], resume["after"]) == ("resp_1", 4)
    own.say("response.output_text.delta", sequence_number=4, delta="One ")
    own.say("response.output_text.delta", sequence_number=5, delta="two")
    own.say("response.completed", sequence_number=6, response={"id": "resp_1", "usage": None})
    has_ended(turn)
    expect(turn.get_by_test_id("answer")).to_have_text("One two")
    assert [request["type"] for request in own.requests] == ["response.create", "x.resume"]


def test_an_answer_goes_on_after_a_reload(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    half_an_answer(page, own)
    page.reload()
    turn = page.locator(".turn")
    expect(turn).to_have_attribute("data-status", "streaming")
    assert own.last("x.resume")["after"] == 4
    own.say("response.output_text.delta", sequence_number=5, delta="two")
    own.say("response.completed", sequence_number=6, response={"id": "resp_1", "usage": None})
    has_ended(turn)
    expect(turn.get_by_test_id("answer")).to_have_text("One two")


@pytest.mark.skipif("x.resume" not in CLIENT_EVENTS, reason="this server does not resume")
def test_the_real_server_goes_on_where_the_cable_was_cut(visit: Visit) -> None:
    page = visit.tab()
    cable = Cable(page)
    wire = Wire(page)
    page.goto(visit.url)
    has_ended(ask(page, A_WHILE))
    whole = page.get_by_test_id("answer").inner_text()
    turn = ask(page, A_WHILE)
    is_streaming(turn)
    before = turn.get_by_test_id("answer").inner_text()
    cable.cut()
    has_ended(turn)
    after = turn.get_by_test_id("answer").inner_text()
    assert after.startswith(before) and len(after) > len(before)
    # The engine of the tests always says the same: nothing is missing and nothing came twice.
    assert after == whole
    assert cable.plugged == 2
    assert len(wire.requests()) == 2


def test_a_rest_that_is_gone_is_said_and_can_be_asked_again(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    half_an_answer(page, own)
    own.cut(4490)
    expect(page.locator(".turn")).to_have_attribute("data-status", "streaming")
    expect(page.get_by_test_id("link")).to_have_attribute("data-phase", "open")
    page.wait_for_timeout(100)
    error = {"type": "invalid_request_error", "code": "resume_gap", "message": "too old", "param": None}
    own.say("error", status=404, error=error)
    turn = page.locator(".turn")
    has_ended(turn, "failed")
    expect(turn.get_by_test_id("answer")).to_have_text("One")
    turn.get_by_role("button", name="Try again").click()
    expect(turn.locator(".waiting")).to_be_visible()
    own.answer("All of it.")
    has_ended(turn)


def test_the_place_in_the_queue(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    turn = ask(page, "Hi")
    own.say("response.queued", sequence_number=0, response={"id": "r"}, x_position=4)
    expect(turn.locator(".waiting")).to_have_text("In the queue, 3 before this one")
    own.say("response.output_text.delta", sequence_number=3, delta="Now")
    expect(turn.get_by_test_id("answer")).to_have_text("Now")


def test_the_context_meter(scripted: tuple[Page, ScriptedServer]) -> None:
    page, own = scripted
    expect(page.get_by_test_id("context")).to_have_count(0)
    ask(page, "Hi")
    own.begin()
    usage = {"input_tokens": 1000, "output_tokens": 24}
    own.say("response.completed", response={"id": "r", "usage": usage})
    meter = page.get_by_test_id("context")
    expect(meter).to_have_accessible_name("1,024 of 4,096 tokens of context used")
    expect(meter).to_contain_text("25 % of context")


def test_two_tabs_on_one_conversation(visit: Visit) -> None:
    first = visit.open()
    has_ended(ask(first, "Root"))
    second = visit.open()
    second.get_by_role("button", name=re.compile("^Root")).first.click()
    expect(second.locator(".question")).to_have_text(["Root"])

    # While one answers, the other one watches and waits.
    turn = ask(first, LONG)
    is_streaming(turn)
    watched = second.locator(".turn").nth(1)
    expect(watched).to_have_attribute("data-status", "streaming")
    expect(second.get_by_text("This is being answered in another tab")).to_be_visible()
    field(second).fill("Me too")
    field(second).press("Enter")
    expect(second.locator(".turn")).to_have_count(2)
    first.keyboard.press("Escape")
    has_ended(turn, "stopped")
    has_ended(watched, "stopped")
    assert watched.get_by_test_id("answer").inner_text() == turn.get_by_test_id("answer").inner_text()

    # What both ask then stands side by side, in both.
    has_ended(ask(first, "From the first"))
    expect(second.locator(".question").last).to_have_text("From the first")
    second.locator(".turn").last.get_by_role("button", name="Answer once more").click()
    has_ended(second.locator(".turn").last)
    expect(first.locator(".branch-place")).to_have_text("Branch 1/2")
    first.reload()
    expect(first.locator(".branch-place")).to_have_text(re.compile("Branch ./2"))
    expect(first.locator(".turn")).to_have_count(3)


def test_a_tab_that_is_closed_leaves_its_answer_to_another(visit: Visit) -> None:
    first = visit.open()
    turn = ask(first, A_WHILE)
    is_streaming(turn)
    second = visit.open()
    second.get_by_role("button", name=re.compile("^Please talk")).first.click()
    expect(second.locator(".turn")).to_have_attribute("data-status", "streaming")
    first.close(run_before_unload=True)
    # It is either resumed to its end or said to be lost, never left hanging.
    expect(second.locator(".turn")).to_have_attribute("data-status", re.compile("done|failed"), timeout=30_000)


def test_server_goes_and_comes_back(chrome: Browser) -> None:
    server.built_ui()
    port = server.free_port()
    # Not watched: the browser itself complains in the console about a server that is not there.
    page = chrome.new_page()
    wire = Wire(page)
    try:
        with server.running_server(port) as url:
            page.goto(url)
            has_ended(ask(page, "Before"))
        expect(page.get_by_test_id("link")).to_have_text("Reconnecting")
        turn = ask(page, "While it is away")
        expect(turn).to_have_attribute("data-status", "queued")
        with server.running_server(port):
            page.get_by_role("button", name="Connect now").or_(page.locator('[data-phase="open"]')).first.wait_for()
            is_connected(page)
            has_ended(turn)
        request = wire.requests()[-1]
        assert "previous_response_id" not in request
        assert [item["content"] for item in request["input"]][::2] == ["Before", "While it is away"]
    finally:
        page.close()
