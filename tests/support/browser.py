"""A real browser, driven by Playwright."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from infra.chromium import launch_options

SECONDS = 30
ENLARGING_SECONDS = 90
"""Two cores without bfloat16 take over half a minute for the larger images of these tests."""
Draw = Callable[..., Path]
"""Name and perhaps (width, height) → an image file, each time another."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without windows. Raises FileNotFoundError where there is none: what people see has to be looked at."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch_options())
        yield browser
        browser.close()


class Visit:
    """A page, and what went wrong in its console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))


def choose(page: Page, *files: Path, factor: int = 4) -> None:
    """Give the page images."""
    page.locator(f"input[name=factor][value='{factor}']").check(force=True)
    page.set_input_files("#files", list(files))


def done(page: Page, index: int = 0) -> None:
    """Until an image is done; the first is on top."""
    expect(page.locator(".card").nth(index).locator(".done")).to_be_visible(timeout=ENLARGING_SECONDS * 1000)


def working(page: Page, what: str = "Enlarging") -> None:
    """Until the image on top says so."""
    expect(page.locator(".card .state").first).to_contain_text(what, timeout=SECONDS * 1000)


def percent(page: Page) -> float:
    """How far the image on top is."""
    return float(page.locator(".card progress").first.evaluate("bar => bar.value"))
