"""What the page shows while a job runs, in a real browser (Chromium).

The worker of these tests pauses before each tile, so that the jobs take some seconds on fast and on slow processors.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from redis import Redis

from tests.support.browser import SECONDS, Draw, Visit, choose, done, percent, working
from tests.support.images import opened
from tests.support.servers import function
from tests.support.workers import worker
from upres.core import api_keys, registry
from upres.embedded.stack import Local


@pytest.fixture(scope="module", autouse=True)
def pausing_worker(local: Local) -> Iterator[None]:
    """A photo of 440×290 pixels has some twenty tiles of this worker, and takes five seconds."""
    local.stop("worker")
    try:
        with worker(local, "--tile=160", "--pause-seconds=0.2"):
            yield
    finally:
        local.start("worker")


def test_a_file_is_chosen_enlarged_and_downloaded(page: Page, draw: Draw) -> None:
    photo = draw("cat.png", (440, 290))
    choose(page, photo)
    working(page)
    expect(page.locator(".size")).to_have_text("440×290 → 1760×1160")
    seen = percent(page)
    canvas = page.locator(".tiles")
    expect(canvas).to_have_attribute("data-tiles", re.compile(r"\d+"), timeout=SECONDS * 1000)
    assert "tile" in page.locator(".state").inner_text()
    assert percent(page) > seen
    painted = canvas.evaluate("c => c.getContext('2d').getImageData(20, 20, 1, 1).data[3]")
    assert painted == 255
    done(page)
    after = page.locator("img.after")
    assert after.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [1760, 1160]
    with page.expect_download() as download:
        page.locator(".download").click()
    assert download.value.suggested_filename == "cat_x4.png"
    assert opened(Path(download.value.path()).read_bytes()).size == (1760, 1160)
    page.locator(".card summary").click()
    assert page.locator("dl div").count() == 5
    assert "s" in page.locator("dd").first.inner_text()


def test_the_page_still_shows_its_jobs_after_a_reload(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png", (430, 280)))
    working(page)
    page.reload()
    working(page)
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("h2")).to_have_text("cat.png")
    expect(page.locator(".before")).to_be_visible()  # from a small copy: the page does not keep the whole file
    done(page)
    page.reload()  # a finished job is also shown after a reload
    done(page)
    assert page.locator("img.before").evaluate("image => image.naturalWidth") == 1720
    page.locator(".remove").click()
    page.reload()
    expect(page.locator(".card")).to_have_count(0)


def test_the_page_reconnects_after_the_server_restarts(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.goto(local.url)
    choose(page, draw("cat.png", (435, 285)))
    working(page)
    local.stop("function")
    working(page, "The connection is lost")
    local.start("function")
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_" not in text]  # messages of the browser


def test_the_page_reconnects_after_the_network_returns(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.goto(local.url)
    choose(page, draw("cat.png", (425, 285)))
    working(page)
    page.context.set_offline(True)
    local.stop("function")  # Chromium's offline mode does not close open connections
    working(page, "The connection is lost")
    local.start("function")
    page.context.set_offline(False)
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_" not in text]


def test_a_cancelled_job_can_be_retried_and_cancelled_again(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png", (431, 283)))
    working(page)
    page.locator(".cancel").click()
    working(page, "Cancelled.")
    page.locator(".again").click()
    working(page)
    page.locator(".cancel").click()
    working(page, "Cancelled.")


def test_the_page_asks_for_an_api_key_and_then_runs_the_job(
    visit: Visit, local: Local, redis: Redis, tmp_path: Path, draw: Draw
) -> None:
    _, text = api_keys.create(redis, "somebody")
    page = visit.page
    for url in function(local, tmp_path, UPRES_ACCESS="keys"):
        page.goto(url)
        choose(page, draw("cat.png", (433, 281)))
        working(page, "This server needs an API key")
        page.locator("input[name=key]").fill(text[:-1] + "!")
        page.keyboard.press("Enter")
        expect(page.locator("#trouble")).to_have_text("The server does not know this API key.")
        page.locator("input[name=key]").fill(text)
        page.keyboard.press("Enter")
        working(page)
        stable = [entry.stable for entry in registry.index(local.store).models.values()]
        enlarging = [version for version in stable if version and max(version.factors, default=1) > 1]
        expect(page.locator(".model input")).to_have_count(len(enlarging))
        page.reload()  # the page has lost the API key but still has the job's token
        expect(page.locator(".tiles")).to_have_attribute("data-tiles", re.compile(r"\d+"), timeout=SECONDS * 1000)
        done(page)
    visit.wrong = [text for text in visit.wrong if "401" not in text]
