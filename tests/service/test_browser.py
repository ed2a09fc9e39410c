"""Tests of the web page in a real browser (Chromium), with the actions of a user."""

from pathlib import Path

import requests
from playwright.sync_api import Page, expect

from tests.support.browser import SECONDS, Draw, Visit, choose, done, working
from tests.support.servers import body, http_server
from upres.core.sizes import WantedSize
from upres.embedded.stack import Local
from upres.worker.imaging.kinds import NAMED


def test_nine_files_chosen_at_once_are_all_enlarged(page: Page, draw: Draw) -> None:
    """Nine jobs are more than the connections that a browser opens to one server."""
    choose(page, *(draw(f"{number}.png", (60 + number, 50)) for number in range(9)), factor=2)
    expect(page.locator(".card")).to_have_count(9)
    for index in range(9):
        done(page, index)
    sizes = page.locator("img.after").evaluate_all("images => images.map((image) => image.naturalWidth).sort()")
    assert sizes == [120 + 2 * number for number in range(9)]
    assert page.locator("h2").all_inner_texts() == [f"{number}.png" for number in range(9)]


def test_a_width_or_a_height_gives_results_of_that_size(page: Page, draw: Draw) -> None:
    choose(page, draw("a.png", (60, 50)), factor="size")
    expect(page.locator("#trouble")).to_contain_text("width or the height")
    expect(page.locator("[name=width]")).to_be_focused()
    page.keyboard.type("150")
    choose(page, draw("a.png", (60, 50)), factor="size")
    expect(page.locator(".card .size")).to_have_text("60×50 → 150×125")
    done(page)
    expect(page.locator(".card .state").first).to_contain_text("150 × 125")
    page.reload()
    done(page)
    expect(page.locator(".card .size")).to_have_text("60×50 → 150×125")


def test_the_page_computes_sizes_as_the_server_does(page: Page) -> None:
    sides = (1, 2, 3, 7, 299, 300, 667, 1000, 4001)
    wanted = [WantedSize(factor) for factor in (2, 2.5, 1.0001, 3.3333, 8)]
    wanted += [WantedSize(None, *size) for size in ((1920, 1080), (1080, 1920), (777, None), (None, 778), (5, 5))]
    cases = [((width, height), one) for width in sides for height in sides for one in wanted]
    given = [[image, {"factor": one.factor, "width": one.width, "height": one.height}] for image, one in cases]
    compute = "import('/web/size.js').then(({ resultSize }) => cases.map((one) => resultSize(...one)))"
    assert page.evaluate(f"(cases) => {compute}", given) == [list(one.size_for(image)) for image, one in cases]


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
    working(page, f"The data is not an image; send a {NAMED} file.")
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
    choose(page, *(draw(name, (230 + number, 200)) for number, name in enumerate(names)), factor=2)
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
