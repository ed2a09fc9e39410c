"""Helpers that use the web page in a real browser, which Playwright controls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from infra.chromium import launch_options
from tests.support.paths import ROOT

AXE = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
SECONDS = 30
ENLARGING_SECONDS = 90
"""Two CPU cores without bfloat16 need more than 30 seconds for the larger images of these tests."""
Draw = Callable[..., Path]
"""A function: file name and optional (width, height) → path of a new image file."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser. Raises FileNotFoundError if none is installed, because page tests must not be skipped."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch_options())
        yield browser
        browser.close()


class Visit:
    """A page, and the errors in its console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))


def choose(page: Page, *files: Path, factor: int | str = 4) -> None:
    """Choose a factor, or `size`, and image files on the page."""
    page.locator(f"input[name=factor][value='{factor}']").check(force=True)
    page.set_input_files("#files", list(files))


def choose_model(page: Page, name: str) -> None:
    """Choose a model, which may be among those that the page does not show at once."""
    radio = page.locator(f"input[name=model][value='{name}']")
    expect(radio).to_have_count(1)
    if not radio.is_visible():
        page.locator("#models summary").click()
    radio.check()


def done(page: Page, index: int = 0) -> None:
    """Wait until an image is finished; index 0 is the card on top of the page."""
    expect(page.locator(".card").nth(index).locator(".done")).to_be_visible(timeout=ENLARGING_SECONDS * 1000)


def serious_violations(page: Page) -> list[Any]:
    """What axe finds on the page that makes it hard or impossible to use for some."""
    assert AXE.exists(), "axe-core is missing; `make test` installs it"
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [one for one in found if one["impact"] in ("serious", "critical")]


def working(page: Page, what: str = "Enlarging") -> None:
    """Wait until the card on top shows this state."""
    expect(page.locator(".card .state").first).to_contain_text(what, timeout=SECONDS * 1000)


def percent(page: Page) -> float:
    """The progress of the image on top, in percent."""
    return float(page.locator(".card progress").first.evaluate("bar => bar.value"))
