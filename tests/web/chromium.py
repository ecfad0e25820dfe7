"""The system's Chromium under Playwright, cut off from everything but the page under test.

Knows where the browser is and how to start it without background traffic. Does not know the page.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
HOW_TO_INSTALL = "Chromium is missing: `apt-get install -y chromium`, or set CHROMIUM to the path of one"


def executable() -> str | None:
    """The path of Chromium: the CHROMIUM variable, else what is on the PATH, else None."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser for as long as the block runs; FileNotFoundError says how to get one."""
    path = executable()
    if path is None:
        raise FileNotFoundError(HOW_TO_INSTALL)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield started
        finally:
            started.close()
