"""What a visitor does and sees, in the visitor's words, on top of Playwright.

Knows roles, names and test ids of the page. Does not know what the server answers.
"""

import json
import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

PATIENCE_MS = 30_000


def field(page: Page) -> Locator:
    """Where one writes."""
    return page.get_by_role("textbox", name="Your message")


def ask(page: Page, text: str) -> Locator:
    """Types, presses Enter, and returns the new turn."""
    before = page.locator(".turn").count()
    field(page).fill(text)
    field(page).press("Enter")
    expect(page.locator(".turn")).to_have_count(before + 1)
    return page.locator(".turn").nth(before)


def has_ended(turn: Locator, how: str = "done") -> None:
    """Waits until the turn has ended that way."""
    expect(turn).to_have_attribute("data-status", how, timeout=PATIENCE_MS)


def is_streaming(turn: Locator) -> None:
    """Waits until the turn shows some text and is not finished."""
    expect(turn.get_by_test_id("answer")).to_have_text(re.compile(r"\S"), timeout=PATIENCE_MS)
    expect(turn).to_have_attribute("data-status", "streaming")


def is_connected(page: Page) -> None:
    """Waits for the connection."""
    expect(page.get_by_test_id("link")).to_have_attribute("data-phase", "open", timeout=PATIENCE_MS)


def figures(turn: Locator) -> dict[str, str]:
    """The figures below an answer by their terms."""
    terms = turn.locator(".figure dt").all_inner_texts()
    return dict(zip(terms, turn.locator(".figure dd").all_inner_texts(), strict=True))


def bar_in_words(turn: Locator) -> tuple[int, int]:
    """Cached and all prompt tokens, as the bar tells a screen reader."""
    label = turn.get_by_role("img").get_attribute("aria-label") or ""
    found = re.match(r"([\d,]+) of ([\d,]+) prompt tokens came from the cache", label)
    assert found, label
    cached, prompt = (int(number.replace(",", "")) for number in found.groups())
    return cached, prompt


class Wire:
    """Records what the page sends over its WebSocket; made before the page is opened."""

    def __init__(self, page: Page) -> None:
        self.sent: list[dict[str, Any]] = []
        page.on("websocket", lambda socket: socket.on("framesent", self._record))

    def requests(self) -> list[dict[str, Any]]:
        """The ``response.create`` events so far."""
        return [event for event in self.sent if event["type"] == "response.create"]

    def _record(self, frame: str | bytes) -> None:
        self.sent.append(json.loads(frame))
