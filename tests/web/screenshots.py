"""Pictures of the page in its states: ``python -m tests.web.screenshots OUTDIR [--url URL]``.

Without ``--url`` it starts the test server (real protocol, in-memory engine). Knows the way through the page; judges
nothing: the pictures are for people to look at.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, expect

from tests.web.chromium import browser
from tests.web.server import built_ui, running_server

SECOND_QUESTION = "Thank you. And what else do you have?"


@dataclass(frozen=True)
class Look:
    """A kind of screen."""

    name: str
    width: int
    height: int
    scheme: Literal["light", "dark"]
    touch: bool = False


LOOKS = (
    Look("desktop-light", 1280, 800, "light"),
    Look("desktop-dark", 1280, 800, "dark"),
    Look("phone-light", 390, 844, "light", touch=True),
    Look("phone-dark", 390, 844, "dark", touch=True),
)


def take(page: Page, url: str, folder: Path, name: str) -> list[Path]:
    """The way of a first visit, with a picture at each stop."""
    taken: list[Path] = []

    def picture(state: str) -> None:
        taken.append(folder / f"{name}-{state}.png")
        page.screenshot(path=taken[-1])

    page.goto(url)
    suggestions = page.get_by_role("region", name="Suggestions").get_by_role("button")
    expect(suggestions.first).to_be_visible()
    picture("empty")
    suggestions.first.click()
    expect(page.locator(".answer").first).to_contain_text(" ")
    picture("streaming")
    expect(page.locator(".turn").last).to_have_attribute("data-status", "done", timeout=60_000)
    page.get_by_label("Your message").fill(SECOND_QUESTION)
    page.get_by_label("Your message").press("Enter")
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn").last).to_have_attribute("data-status", "done", timeout=60_000)
    page.locator(".turn").last.get_by_role("button", name="Answer once more").click()
    expect(page.locator(".branch-place")).to_be_visible()
    expect(page.locator(".turn").last).to_have_attribute("data-status", "done", timeout=60_000)
    picture("answered")
    page.get_by_role("button", name="Settings of this chat").click()
    picture("settings")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_test_id("thread").focus()
    page.keyboard.press("?")
    picture("keys")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("2")
    expect(page.get_by_role("heading", name="Batch")).to_be_visible()
    # Long enough for the server to have shown its cache, where it does.
    page.wait_for_timeout(1500)
    picture("live")
    page.keyboard.press("3")
    page.get_by_role("region", name="Suggestions").get_by_role("button").first.click()
    expect(page.locator(".side-card[data-status=done]")).to_have_count(2, timeout=60_000)
    picture("compare")
    return taken


@contextmanager
def address(url: str | None) -> Iterator[str]:
    """The given address, or that of a test server that runs as long as the block."""
    if url is not None:
        yield url
    else:
        built_ui()
        with running_server() as own:
            yield own


def take_all(shown: Browser, url: str, folder: Path) -> list[Path]:
    """Every look in turn, each as a first visit."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: list[Path] = []
    for look in LOOKS:
        context = shown.new_context(
            viewport={"width": look.width, "height": look.height},
            color_scheme=look.scheme,
            device_scale_factor=2,
            is_mobile=look.touch,
            has_touch=look.touch,
        )
        taken += take(context.new_page(), url, folder, look.name)
        context.close()
    return taken


def main() -> None:
    """Reads the command line, takes the pictures, names them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUTDIR")
    parser.add_argument("--url", help="a running server; without it one is started")
    options = parser.parse_args()
    with address(options.url) as url, browser() as shown:
        for path in take_all(shown, url, options.folder):
            print(path)


if __name__ == "__main__":
    main()
