"""The playground in Firefox, whose EventSource gives up where Chromium's reconnects."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import marionette
from upres.embedded.stack import Local

DONE = "return document.querySelector('.card .done')?.checkVisibility()"
WAITING = "return document.querySelector('.card.queued .state')?.textContent"
WIDTH = "return document.querySelector('img.after')?.naturalWidth"


@pytest.fixture
def page(local: Local, tmp_path: Path) -> Iterator[marionette.Firefox]:
    program = marionette.installed()
    if not program:
        pytest.skip("no Firefox; Debian's package is called firefox-esr")
    with marionette.firefox(program, tmp_path) as window:
        window.call("WebDriver:Navigate", {"url": local.url})
        yield window


def test_an_image_is_enlarged_although_the_server_restarts_and_is_shown_after_a_reload(
    page: marionette.Firefox, local: Local, draw: Callable[..., Path]
) -> None:
    local.stop("worker")
    page.choose("#files", draw("photo.png", (120, 80)))
    page.wait(WAITING)
    local.stop("function")
    local.start("function")
    local.start("worker")
    page.wait(DONE)
    page.wait(WIDTH)
    assert page.run(WIDTH) == 480
    page.call("WebDriver:Refresh", {})
    page.wait(DONE)
    assert page.run("return document.querySelectorAll('.card').length") == 1
