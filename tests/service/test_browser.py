"""The page, in a real browser, as people use it."""

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


def test_from_a_file_to_a_download(page: Page, draw: Draw) -> None:
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


def test_a_reload_goes_on(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png", (430, 280)), factor=8)
    working(page)
    page.reload()
    working(page)
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("h2")).to_have_text("cat.png")
    expect(page.locator(".before")).to_be_visible()  # from a small copy, since the file is not kept
    done(page)
    page.reload()  # a finished one is shown again as well
    done(page)
    assert page.locator("img.before").evaluate("image => image.naturalWidth") == 3440
    page.locator(".remove").click()
    page.reload()
    expect(page.locator(".card")).to_have_count(0)


def test_a_restart_of_the_server_is_bridged(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.goto(local.url)
    choose(page, draw("cat.png", (435, 285)), factor=8)
    working(page)
    local.stop("function")
    working(page, "The connection is lost")
    local.start("function")
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_" not in text]  # the browser's own words about it


def test_a_lost_network_is_bridged(visit: Visit, local: Local, draw: Draw) -> None:
    page = visit.page
    page.goto(local.url)
    choose(page, draw("cat.png", (425, 285)), factor=8)
    working(page)
    page.context.set_offline(True)
    local.stop("function")  # Chromium's offline mode leaves open what is open
    working(page, "The connection is lost")
    local.start("function")
    page.context.set_offline(False)
    done(page)
    visit.wrong = [text for text in visit.wrong if "ERR_" not in text]


def test_many_at_once(page: Page, draw: Draw) -> None:
    """More than a browser has connections."""
    choose(page, *(draw(f"{number}.png", (60 + number, 50)) for number in range(9)), factor=2)
    expect(page.locator(".card")).to_have_count(9)
    for index in range(9):
        done(page, index)
    sizes = page.locator("img.after").evaluate_all("images => images.map((image) => image.naturalWidth).sort()")
    assert sizes == [120 + 2 * number for number in range(9)]
    assert page.locator("h2").all_inner_texts() == [f"{number}.png" for number in range(9)]


def test_tabs_share_what_a_browser_has(visit: Visit, local: Local, draw: Draw) -> None:
    """Six jobs wait in two tabs, and a third tab still gets its page, and cancels."""
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


def test_what_is_no_image_is_said(page: Page, tmp_path: Path) -> None:
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


def test_links_that_are_too_old_are_made_new(visit: Visit, page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png"))
    done(page)
    page.route("**/upres/results/**", lambda route: route.fulfill(status=403), times=2)
    page.reload()
    done(page)
    expect(page.locator(".controls")).to_be_visible()
    visit.wrong = [text for text in visit.wrong if "403" not in text]


def test_addresses_and_dropped_and_pasted_images(page: Page, draw: Draw) -> None:
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


def test_a_job_is_cancelled_and_tried_again(page: Page, draw: Draw) -> None:
    choose(page, draw("cat.png", (431, 283)), factor=8)
    working(page)
    page.locator(".cancel").click()
    working(page, "Cancelled.")
    page.locator(".again").click()
    working(page)
    page.locator(".cancel").click()
    working(page, "Cancelled.")


def test_large_files_are_uploaded_with_progress(visit: Visit, local: Local, draw: Draw) -> None:
    """Large is 4 MB; here a thousandth of that."""
    script = requests.get(f"{local.url}/web/upres.js", timeout=20).text.replace("4_000_000", "4_000")
    visit.page.route("**/web/upres.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    visit.page.goto(local.url)
    puts: list[str] = []
    visit.page.on("request", lambda request: puts.append(request.url) if request.method == "PUT" else None)
    choose(visit.page, draw("cat.png"))
    done(visit.page)
    assert len(puts) == 1
    assert not puts[0].startswith(local.url)


def test_an_api_key_is_asked_for(visit: Visit, local: Local, redis: Redis, tmp_path: Path, draw: Draw) -> None:
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
        page.reload()  # the key is gone, the job's token is not
        expect(page.locator(".tiles")).to_have_attribute("data-tiles", re.compile(r"\d+"), timeout=SECONDS * 1000)
        done(page)
    visit.wrong = [text for text in visit.wrong if "401" not in text]
