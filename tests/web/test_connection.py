"""What the visitor sees when the server goes away and comes back."""

from playwright.sync_api import Browser, expect

from tests.web import server
from tests.web.visitor import Wire, ask, has_ended, is_connected


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
