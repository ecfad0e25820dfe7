"""Fixtures of the browser tests: the built UI, the server, the browser, and a page that is watched.

Knows that every test must leave a quiet console and speak to no other host. Does not know what the tests do.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.web import chromium, server
from tests.web.scripted import ScriptedServer

# A busy machine is slow, not wrong.
expect.set_options(timeout=10_000)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    """One browser for a file of tests; each test gets its own context. Not for longer: as long as it is open an event
    loop runs in this thread, and asynchronous tests of another file could not run theirs."""
    if chromium.executable() is None:
        if os.environ.get("CI"):
            pytest.fail(chromium.HOW_TO_INSTALL)
        pytest.skip(chromium.HOW_TO_INSTALL)
    with chromium.browser() as shown:
        yield shown


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address of a test server that serves the built UI."""
    server.built_ui()
    with server.running_server() as url:
        yield url


@dataclass
class Visit:
    """A browser context whose requests and console are recorded."""

    context: BrowserContext
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def tab(self) -> Page:
        """A new tab, watched but still empty."""
        page = self.context.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self._heard(message.type, message.text))
        return page

    def open(self) -> Page:
        """A new tab on the page."""
        page = self.tab()
        page.goto(self.url)
        return page

    def strangers(self) -> list[str]:
        """Requests that went to any other host than the page's own."""
        own = urlsplit(self.url).netloc
        return [url for url in self.requests if urlsplit(url).netloc != own]

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)


@pytest.fixture
def visit(chrome: Browser, site: str) -> Iterator[Visit]:
    """A fresh visitor on a desktop. Afterwards: no complaint in the console, no request elsewhere."""
    yield from watched(chrome.new_context(viewport={"width": 1280, "height": 800}), site)


@pytest.fixture
def phone(chrome: Browser, site: str) -> Iterator[Visit]:
    """The same on a phone."""
    context = chrome.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    yield from watched(context, site)


@pytest.fixture
def scripted(visit: Visit) -> tuple[Page, ScriptedServer]:
    """The page, connected to a server of the test's own making."""
    page = visit.tab()
    own = ScriptedServer(page)
    page.goto(visit.url)
    expect(page.get_by_test_id("model")).to_have_text("scripted")
    return page, own


def watched(context: BrowserContext, url: str) -> Iterator[Visit]:
    """Yields the visit and holds it to the rules when the test is over."""
    visitor = Visit(context, url)
    yield visitor
    context.close()
    assert visitor.requests, "nothing was recorded: the watch itself is broken"
    assert visitor.strangers() == []
    assert visitor.complaints == []
