"""Tests of the web page in a real browser (Chromium), with the actions of a user."""

import re
from pathlib import Path

import requests
from playwright.sync_api import Page, expect
from redis import Redis

from tests.support.browser import SECONDS, Draw, Visit, choose, done, percent, working
from tests.support.images import opened
from tests.support.servers import body, function, http_server
from upres.core import api_keys, registry
from upres.embedded.stack import Local


def test_a_file_is_chosen_enlarged_and_downloaded(page: Page, draw: Draw) -> None:
    photo = draw("cat.png", (440, 290))
    choose(page, photo, factor=8)
    working(page)
    expect(page.locator(".size")).to_have_text("440×290 → 3520×2320")
    seen = percent(page)
    canvas = page.locator(".tiles")
    expect(canvas).to_have_attribute("data-tiles", re.compile(r"\d+"), timeout=SECONDS * 1000)
    assert "tile" in page.locator(".state").inner_text()
    assert percent(page) > seen
    painted = canvas.evaluate("c => c.getContext('2d').getImageData(20, 20, 1, 1).data[3]")
    assert painted == 255
    done(page)
    after = page.locator("img.after")
    assert after.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [3520, 2320]
    with page.expect_download() as download:
        page.locator(".download").click()
    assert download.value.suggested_filename == "cat_x8.png"
    assert opened(Path(download.value.path()).read_bytes()).size == (3520, 2320)
    page.locator("summary").click()
    assert page.locator("dl div").count() == 5
    assert "s" in page.locator("dd").first.inner_text()


def test_the_page_still_shows_its_jobs_after_a_reload(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png", (430, 280)), factor=8)
    working(page)
    page.reload()
    working(page)
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("h2")).to_have_text("cat.png")
    expect(page.locator(".before")).to_be_visible()  # from a small copy: the page does not keep the whole file
    done(page)
    page.reload()  # a finished job is also shown after a reload
    done(page)
    assert page.locator("img.before").evaluate("image => image.naturalWidth") == 3440
    page.locator(".remove").click()
    page.reload()
    expect(page.locator(".card")).to_have_count(0)


def test_the_page_reconnects_after_the_server_restarts(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.goto(local.url)
    choose(page, draw("cat.png", (435, 285)), factor=8)
    working(page)
    local.stop("function")
    working(page, "The connection is lost")
    local.start("function")
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_" not in text]  # messages of the browser


def test_the_page_reconnects_after_the_network_returns(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.goto(local.url)
    choose(page, draw("cat.png", (425, 285)), factor=8)
    working(page)
    page.context.set_offline(True)
    local.stop("function")  # Chromium's offline mode does not close open connections
    working(page, "The connection is lost")
    local.start("function")
    page.context.set_offline(False)
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_" not in text]


def test_nine_files_chosen_at_once_are_all_enlarged(page: Page, draw: Draw) -> None:
    """Nine jobs are more than the connections that a browser opens to one server."""
    choose(page, *(draw(f"{number}.png", (60 + number, 50)) for number in range(9)), factor=2)
    expect(page.locator(".card")).to_have_count(9)
    for index in range(9):
        done(page, index)
    sizes = page.locator("img.after").evaluate_all("images => images.map((image) => image.naturalWidth).sort()")
    assert sizes == [120 + 2 * number for number in range(9)]
    assert page.locator("h2").all_inner_texts() == [f"{number}.png" for number in range(9)]


def test_waiting_jobs_in_two_tabs_do_not_block_a_third_tab(visit: Visit, local: Local, draw: Draw) -> None:
    """Eight jobs wait in two tabs. A third tab still loads the page, and all jobs can be cancelled."""
    local.stop("worker")
    try:
        tabs = [visit.page, visit.page.context.new_page()]
        for tab in tabs:
            tab.goto(local.url)
        for tab in tabs:
            choose(tab, *(draw(f"{number}.png") for number in range(4)), factor=2)
            expect(tab.locator(".card")).to_have_count(4)
            expect(tab.locator(".state").last).to_contain_text("Queued", timeout=SECONDS * 1000)
        third = visit.page.context.new_page()
        third.goto(local.url, timeout=10_000)
        expect(third.locator(".card")).to_have_count(8)
        for tab in tabs:
            for button in tab.locator(".cancel").all():
                button.click()
            expect(tab.locator(".card.failed")).to_have_count(4, timeout=SECONDS * 1000)
    finally:
        local.start("worker")


def test_a_text_file_an_empty_file_and_a_missing_url_show_errors(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    page.set_input_files("#files", tmp_path / "notes.txt")
    working(page, "The data is not an image; send a PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF file.")
    expect(page.locator(".again")).to_be_hidden()
    expect(page.locator("#news")).to_contain_text("notes.txt: The data is not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    page.set_input_files("#files", tmp_path / "empty.png")
    expect(page.locator("#trouble")).to_contain_text("There is no file in that")
    page.locator(".address button").click()
    expect(page.locator("#trouble")).to_contain_text("Give the address of an image")


def test_result_links_that_get_403_are_renewed(visit: Visit, page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png"))
    done(page)
    page.route("**/upres/results/**", lambda route: route.fulfill(status=403), times=2)
    page.reload()
    done(page)
    expect(page.locator(".controls")).to_be_visible()
    visit.wrong = [text for text in visit.wrong if "403" not in text]


def test_images_are_accepted_as_url_by_drop_and_by_paste(page: Page, draw: Draw) -> None:
    data = draw("dropped.png").read_bytes()
    with http_server(body(draw("far.png").read_bytes())) as url:
        page.locator("input[name=url]").fill(f"{url}/far%20away.png")
        page.keyboard.press("Enter")
        done(page)
    expect(page.locator("h2").first).to_have_text("far away.png")
    for kind in ("drop", "paste"):
        page.evaluate(
            """([kind, bytes]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], kind + ".png", { type: "image/png" }));
                const init = { bubbles: true, cancelable: true };
                const event = kind === "drop" ? new DragEvent(kind, { ...init, dataTransfer: transfer })
                    : new ClipboardEvent(kind, { ...init, clipboardData: transfer });
                document.body.dispatchEvent(event);
            }""",
            [kind, list(data)],
        )
        expect(page.locator("h2").first).to_have_text(f"{kind}.png")
        done(page)


def test_a_cancelled_job_can_be_retried_and_cancelled_again(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png", (431, 283)), factor=8)
    working(page)
    page.locator(".cancel").click()
    working(page, "Cancelled.")
    page.locator(".again").click()
    working(page)
    page.locator(".cancel").click()
    working(page, "Cancelled.")


def test_a_large_file_is_uploaded_directly_to_the_store(visit: Visit, local: Local, draw: Draw) -> None:
    """Files above 0.7 MB are uploaded to the store; the test lowers this limit to 4 kB."""
    script = requests.get(f"{local.url}/web/upres.js", timeout=20).text.replace("700_000", "4_000")
    visit.page.route("**/web/upres.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    visit.page.goto(local.url)
    puts: list[str] = []
    visit.page.on("request", lambda request: puts.append(request.url) if request.method == "PUT" else None)
    choose(visit.page, draw("cat.png"))
    done(visit.page)
    assert len(puts) == 1
    assert not puts[0].startswith(local.url)


def test_the_page_asks_for_an_api_key_and_then_runs_the_job(
    visit: Visit, local: Local, redis: Redis, tmp_path: Path, draw: Draw
) -> None:
    _, text = api_keys.create(redis, "somebody")
    page = visit.page
    for url in function(local, tmp_path, UPRES_ACCESS="keys"):
        page.goto(url)
        choose(page, draw("cat.png", (433, 281)), factor=8)
        working(page, "This server needs an API key")
        page.locator("input[name=key]").fill(text[:-1] + "!")
        page.keyboard.press("Enter")
        expect(page.locator("#trouble")).to_have_text("The server does not know this API key.")
        page.locator("input[name=key]").fill(text)
        page.keyboard.press("Enter")
        working(page)
        expect(page.locator("select[name=model] option")).to_have_count(len(registry.index(local.store).models))
        page.reload()  # the page has lost the API key but still has the job's token
        expect(page.locator(".tiles")).to_have_attribute("data-tiles", re.compile(r"\d+"), timeout=SECONDS * 1000)
        done(page)
    visit.wrong = [text for text in visit.wrong if "401" not in text]


STORAGE_BLOCKED = """
const refuse = () => { throw new DOMException("Access is denied for this document.", "SecurityError"); };
Object.defineProperty(window, "localStorage", { get: refuse });
navigator.locks.request = async () => refuse();
"""
"""What Chromium does when its user blocks all cookies, or in a frame of another site."""


def test_images_are_enlarged_while_the_browser_blocks_storage(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.add_init_script(STORAGE_BLOCKED)
    page.goto(local.url)
    choose(page, *(draw(f"{number}.png", (60 + number, 50)) for number in range(4)), factor=2)
    for index in range(4):
        done(page, index)
    expect(page.locator(".trouble:visible")).to_have_count(0)


STORAGE_NEARLY_FULL = """
localStorage.setItem("other", "");
let room = 5 * 2 ** 20;
for (let step = room / 2; step >= 64; step /= 2) {
  try { localStorage.setItem("other", "x".repeat(room)); room += step; } catch { room -= step; }
}
localStorage.setItem("other", "x".repeat(room - 60_000));
"""
"""Fills the storage of the site except for 60,000 characters: enough for nine jobs, but not for their thumbnails."""


def test_jobs_are_kept_when_there_is_no_room_for_thumbnails(page: Page, draw: Draw) -> None:
    page.evaluate(STORAGE_NEARLY_FULL)
    names = [f"{number}.png" for number in range(9)]
    choose(page, *(draw(name, (460 + number, 400)) for number, name in enumerate(names)), factor=2)
    for index in range(9):
        done(page, index)
    page.reload()
    expect(page.locator(".card")).to_have_count(9)
    assert sorted(page.locator("h2").all_inner_texts()) == names
    done(page)
    kept = page.evaluate(
        "JSON.parse(localStorage.getItem('upres.jobs')).map((entry) => [entry.name, Boolean(entry.thumb)])"
    )
    assert {has_thumb for _, has_thumb in kept} == {False, True}
    assert kept[0][1] is False  # the oldest thumbnails are given up first
