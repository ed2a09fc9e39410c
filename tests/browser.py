"""Debian's Chromium, driven by Playwright; whoever has none installs the package `chromium`."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SECONDS = 60


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without windows. Raises AssertionError where there is none: what people see has to be looked at."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "there is no Chromium; apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


class Visit:
    """A page, and what went wrong in its console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.bytes: dict[str, int] = {}
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
